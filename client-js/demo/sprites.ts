// What is drawn many times per frame is painted once: a glow costs a blit then, not a blur.

export const OWN_COLOR = '#5ef2c8';
/** People stand out, bots do not: warm and strong against cool and quiet. */
const HUMAN_HUES = [18, 42, 330, 280, 355, 68, 305, 200];
const BOT_HUES = [214, 228, 244, 262, 198, 184];
/** Side of a ship's picture, in which its hull has a quarter of that as radius: the rest is glow. */
const SIDE = 192;
const HULL = SIDE / 4;

const cache = new Map<string, HTMLCanvasElement>();

export function shipColor(id: number, isOwn: boolean, isHuman: boolean): string {
  if (isOwn) return OWN_COLOR;
  if (isHuman) return `hsl(${HUMAN_HUES[id % HUMAN_HUES.length]} 92% 66%)`;
  return `hsl(${BOT_HUES[id % BOT_HUES.length]} 56% 64%)`;
}

/** Draws a ship's hull around the origin, nose to the right. */
export function drawShip(context: CanvasRenderingContext2D, color: string, radius: number): void {
  const half = (radius / HULL) * (SIDE / 2);
  context.drawImage(
    cached(`ship ${color}`, SIDE, (c) => paintShip(c, color)),
    -half,
    -half,
    2 * half,
    2 * half,
  );
}

export function drawMote(
  context: CanvasRenderingContext2D,
  x: number,
  y: number,
  radius: number,
  large: boolean,
): void {
  const picture = cached(`mote ${large}`, 64, (c) => paintMote(c, large));
  const half = radius * 3.2;
  context.drawImage(picture, x - half, y - half, 2 * half, 2 * half);
}

function cached(key: string, side: number, paint: (c: CanvasRenderingContext2D) => void): HTMLCanvasElement {
  const known = cache.get(key);
  if (known) return known;
  const canvas = document.createElement('canvas');
  canvas.width = side;
  canvas.height = side;
  const context = canvas.getContext('2d');
  if (context) {
    context.translate(side / 2, side / 2);
    paint(context);
  }
  cache.set(key, canvas);
  return canvas;
}

function paintShip(c: CanvasRenderingContext2D, color: string): void {
  const glow = c.createRadialGradient(0, 0, HULL * 0.5, 0, 0, SIDE / 2);
  glow.addColorStop(0, color);
  glow.addColorStop(1, 'transparent');
  c.globalAlpha = 0.32;
  c.fillStyle = glow;
  c.fillRect(-SIDE / 2, -SIDE / 2, SIDE, SIDE);
  c.globalAlpha = 1;

  // A swept dart that fills the circle which the server collides with.
  const r = HULL;
  c.beginPath();
  c.moveTo(r * 1.08, 0);
  c.quadraticCurveTo(r * 0.25, -r * 0.42, -r * 0.72, -r * 0.84);
  c.quadraticCurveTo(-r * 0.52, 0, -r * 0.72, r * 0.84);
  c.quadraticCurveTo(r * 0.25, r * 0.42, r * 1.08, 0);
  c.closePath();
  const body = c.createLinearGradient(-r * 0.7, 0, r, 0);
  body.addColorStop(0, 'rgb(9 13 24)');
  body.addColorStop(0.42, color);
  body.addColorStop(1, '#ffffff');
  c.fillStyle = body;
  c.fill();
  c.lineJoin = 'round';
  c.lineWidth = 3.5;
  c.strokeStyle = color;
  c.stroke();

  c.beginPath();
  c.ellipse(r * 0.02, 0, r * 0.26, r * 0.15, 0, 0, 2 * Math.PI);
  c.fillStyle = 'rgb(6 10 20 / 80%)';
  c.fill();
}

function paintMote(c: CanvasRenderingContext2D, large: boolean): void {
  const color = large ? '#ffb454' : '#ffe39a';
  const glow = c.createRadialGradient(0, 0, 0, 0, 0, 32);
  glow.addColorStop(0, '#ffffff');
  glow.addColorStop(0.16, color);
  glow.addColorStop(0.34, `${color}66`);
  glow.addColorStop(1, `${color}00`);
  c.fillStyle = glow;
  c.fillRect(-32, -32, 64, 64);
  c.fillStyle = large ? '#fff3dc' : color;
  c.beginPath();
  if (large) {
    c.moveTo(0, -11);
    c.lineTo(11, 0);
    c.lineTo(0, 11);
    c.lineTo(-11, 0);
  } else {
    c.arc(0, 0, 8, 0, 2 * Math.PI);
  }
  c.fill();
}
