import { fitCanvas } from './dom.js';

/**
 * Draws values as a filled line, `most` of them across, and answers the peak. The scale is at least `floor`, so that calm looks
 * calm.
 */
export function drawSparkline(
  canvas: HTMLCanvasElement,
  values: readonly number[],
  color: string,
  { floor, most }: { readonly floor: number; readonly most: number },
): number {
  const c = fitCanvas(canvas);
  if (!c) return 0;
  const width = canvas.clientWidth;
  const height = canvas.clientHeight;
  const peak = Math.max(0, ...values);
  const top = Math.max(floor, peak * 1.1);
  c.clearRect(0, 0, width, height);
  c.strokeStyle = 'rgb(148 170 210 / 16%)';
  c.lineWidth = 1;
  c.beginPath();
  for (const share of [0, 0.5, 1]) {
    const y = Math.round((height - 1) * share) + 0.5;
    c.moveTo(0, y);
    c.lineTo(width, y);
  }
  c.stroke();
  if (values.length < 2) return peak;
  const x = (index: number): number => width - ((values.length - 1 - index) / (most - 1)) * width;
  const y = (value: number): number => height - 1 - (value / top) * (height - 3);
  c.beginPath();
  values.forEach((value, index) => {
    c.lineTo(x(index), y(value));
  });
  c.strokeStyle = color;
  c.lineWidth = 1.5;
  c.lineJoin = 'round';
  c.stroke();
  c.lineTo(width, height);
  c.lineTo(x(0), height);
  c.closePath();
  c.globalAlpha = 0.16;
  c.fillStyle = color;
  c.fill();
  c.globalAlpha = 1;
  return peak;
}
