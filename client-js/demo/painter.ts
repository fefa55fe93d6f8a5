import { Camera } from './camera.js';
import type { Controls } from './controls.js';
import { fitCanvas } from './dom.js';
import { Effects } from './effects.js';
import { drawMote, drawShip, OWN_COLOR, shipColor } from './sprites.js';
import type { Scene } from './timeline.js';
import { FLAG_AUTOMATIC, FLAG_HUMAN, FLAG_SHIELDED, FLAG_STUNNED, type Ship } from './wire.js';

const GRID_UNITS = 160;
const NAME_FONT = '600 12px ui-sans-serif, system-ui, sans-serif';

/** What a name tag says; null: none. */
export type NameOf = (id: number) => string | null;

/** Draws the arena. */
export class Painter {
  readonly effects = new Effects();
  readonly camera = new Camera();
  #canvas: HTMLCanvasElement;
  #lastFrame = 0;
  #light = document.createElement('canvas');

  constructor(canvas: HTMLCanvasElement) {
    this.#canvas = canvas;
  }

  draw(scene: Scene | null, controls: Controls, nameOf: NameOf, worldSize: number, now: number): void {
    const c = fitCanvas(this.#canvas);
    if (!c) return;
    const { camera, effects } = this;
    camera.resize(this.#canvas.clientWidth, this.#canvas.clientHeight);
    const seconds = Math.min(0.1, (now - this.#lastFrame) / 1_000);
    this.#lastFrame = now;
    const own = scene?.ships.find((ship) => ship.id === scene.ownId);
    if (own) {
      camera.x = own.x;
      camera.y = own.y;
    } else if (!scene) {
      camera.x = worldSize / 2;
      camera.y = worldSize / 2;
    }
    for (const [from, to] of scene?.passed ?? []) effects.observe(from, to);
    effects.step(seconds);
    if (effects.shake > 0.3) {
      camera.x += ((Math.random() - 0.5) * effects.shake) / camera.scale;
      camera.y += ((Math.random() - 0.5) * effects.shake) / camera.scale;
    }

    this.#drawGround(c, worldSize);
    if (!scene) return;
    for (const mote of scene.motes) {
      const size = mote.large ? 6.5 : 3.6;
      drawMote(
        c,
        camera.screenX(mote.x),
        camera.screenY(mote.y),
        Math.max(2, size * camera.scale),
        mote.large,
      );
    }
    effects.drawTrails(c, camera, scene.ships, scene.ownId, now);
    for (const ship of scene.ships) if (ship !== own) this.#drawShip(c, ship, false, now);
    if (own) {
      this.#drawAim(c, own, controls, now);
      this.#drawShip(c, own, true, now);
    }
    effects.drawSparks(c, camera);
    this.#drawNames(c, scene, nameOf);
    this.#drawStick(c, controls);
  }

  #drawGround(c: CanvasRenderingContext2D, worldSize: number): void {
    const { camera } = this;
    const { width, height } = camera;
    c.fillStyle = '#05070d';
    c.fillRect(0, 0, width, height);
    const left = camera.screenX(0);
    const top = camera.screenY(0);
    const side = worldSize * camera.scale;
    c.save();
    c.beginPath();
    c.rect(left, top, side, side);
    c.clip();
    this.#drawLight(c, width, height);

    const step = GRID_UNITS * camera.scale;
    c.strokeStyle = 'rgb(130 160 220 / 6.5%)';
    c.lineWidth = 1;
    c.beginPath();
    for (let x = mod(left, step); x < width; x += step) {
      c.moveTo(x, 0);
      c.lineTo(x, height);
    }
    for (let y = mod(top, step); y < height; y += step) {
      c.moveTo(0, y);
      c.lineTo(width, y);
    }
    c.stroke();
    // Small crosses where the lines meet: the eye reads speed from them.
    c.fillStyle = 'rgb(160 190 245 / 20%)';
    for (let x = mod(left, step); x < width; x += step) {
      for (let y = mod(top, step); y < height; y += step) {
        c.fillRect(x - 3.5, y - 0.5, 7, 1);
        c.fillRect(x - 0.5, y - 3.5, 1, 7);
      }
    }
    c.restore();
    c.strokeStyle = 'rgb(94 242 200 / 55%)';
    c.lineWidth = 2;
    c.strokeRect(left, top, side, side);
    c.strokeStyle = 'rgb(94 242 200 / 12%)';
    c.lineWidth = 10;
    c.strokeRect(left - 5, top - 5, side + 10, side + 10);
  }

  /** The gradient behind everything, painted once per size: it is the most costly thing on the page otherwise. */
  #drawLight(c: CanvasRenderingContext2D, width: number, height: number): void {
    const picture = this.#light;
    if (picture.width !== this.#canvas.width || picture.height !== this.#canvas.height) {
      picture.width = this.#canvas.width;
      picture.height = this.#canvas.height;
      const p = picture.getContext('2d');
      if (!p) return;
      const [x, y] = [picture.width / 2, picture.height / 2];
      const light = p.createRadialGradient(x, y * 0.9, 0, x, y, Math.hypot(x, y) * 1.2);
      light.addColorStop(0, '#111a33');
      light.addColorStop(0.55, '#0a1020');
      light.addColorStop(1, '#070a14');
      p.fillStyle = light;
      p.fillRect(0, 0, picture.width, picture.height);
    }
    c.drawImage(picture, 0, 0, width, height);
  }

  #drawShip(c: CanvasRenderingContext2D, ship: Ship, isOwn: boolean, now: number): void {
    const { camera } = this;
    const isStunned = (ship.flags & FLAG_STUNNED) !== 0;
    const radius = ship.radius * camera.scale;
    c.save();
    c.translate(camera.screenX(ship.x), camera.screenY(ship.y));
    if (ship.flags & FLAG_SHIELDED) {
      c.globalAlpha = 0.22 + 0.12 * Math.sin(now / 110);
      c.strokeStyle = isOwn ? OWN_COLOR : '#b9caf5';
      c.lineWidth = 1.25;
      c.setLineDash([5, 4]);
      c.beginPath();
      c.arc(0, 0, radius * 1.3, 0, 2 * Math.PI);
      c.stroke();
    }
    c.globalAlpha = isStunned ? 0.55 : 1;
    c.rotate(ship.heading);
    drawShip(c, shipColor(ship.id, isOwn, (ship.flags & FLAG_HUMAN) !== 0), radius);
    c.restore();
  }

  /** The own course at once, before the server has heard of it: the hand gets an answer without waiting. */
  #drawAim(c: CanvasRenderingContext2D, own: Ship, controls: Controls, now: number): void {
    const { camera } = this;
    const x = camera.screenX(own.x);
    const y = camera.screenY(own.y);
    const radius = own.radius * camera.scale;
    c.strokeStyle = OWN_COLOR;
    c.globalAlpha = 0.28;
    c.lineWidth = 1.5;
    c.beginPath();
    c.arc(x, y, radius + 13, 0, 2 * Math.PI);
    c.stroke();
    if (controls.thrust > 0 && controls.isActive(now)) {
      const reach = radius + 13 + 9 * controls.thrust;
      c.globalAlpha = 0.95;
      c.lineWidth = 3;
      c.lineCap = 'round';
      c.beginPath();
      c.arc(x, y, reach, controls.angle - 0.32, controls.angle + 0.32);
      c.stroke();
    }
    c.globalAlpha = 1;
  }

  #drawNames(c: CanvasRenderingContext2D, scene: Scene, nameOf: NameOf): void {
    const { camera } = this;
    c.font = NAME_FONT;
    c.textAlign = 'center';
    c.textBaseline = 'top';
    for (const ship of scene.ships) {
      const isOwn = ship.id === scene.ownId;
      const name = nameOf(ship.id);
      if (!name) continue;
      const isAutomatic = isOwn && (ship.flags & FLAG_AUTOMATIC) !== 0;
      const text = isAutomatic ? `${name} · autopilot` : name;
      const x = camera.screenX(ship.x);
      const y = camera.screenY(ship.y) + ship.radius * camera.scale + (isOwn ? 22 : 9);
      c.lineWidth = 3;
      c.strokeStyle = 'rgb(5 8 15 / 75%)';
      c.strokeText(text, x, y);
      c.fillStyle = shipColor(ship.id, isOwn, (ship.flags & FLAG_HUMAN) !== 0);
      c.fillText(text, x, y);
    }
  }

  #drawStick(c: CanvasRenderingContext2D, controls: Controls): void {
    const stick = controls.stick;
    if (!stick) return;
    c.strokeStyle = 'rgb(232 238 251 / 35%)';
    c.lineWidth = 2;
    c.beginPath();
    c.arc(stick.fromX, stick.fromY, 56, 0, 2 * Math.PI);
    c.stroke();
    const dx = stick.x - stick.fromX;
    const dy = stick.y - stick.fromY;
    const length = Math.max(1, Math.hypot(dx, dy));
    const reach = Math.min(56, length) / length;
    c.fillStyle = 'rgb(94 242 200 / 70%)';
    c.beginPath();
    c.arc(stick.fromX + dx * reach, stick.fromY + dy * reach, 22, 0, 2 * Math.PI);
    c.fill();
  }
}

function mod(value: number, by: number): number {
  return ((value % by) + by) % by;
}
