import { fitCanvas } from './dom.js';
import { OWN_COLOR } from './sprites.js';

/** The whole arena in a corner. */
export class Minimap {
  #canvas: HTMLCanvasElement;
  #points: Uint8Array = new Uint8Array(0);

  constructor(canvas: HTMLCanvasElement) {
    this.#canvas = canvas;
  }

  update(points: Uint8Array): void {
    this.#points = points;
  }

  /** `x` and `y` of the own ship, and the size of the view, as shares of the arena's edge. */
  draw(own: { x: number; y: number; width: number; height: number } | null): void {
    const c = fitCanvas(this.#canvas);
    if (!c) return;
    const pad = 9;
    const width = this.#canvas.clientWidth;
    const side = width - 2 * pad;
    c.clearRect(0, 0, width, width);
    c.strokeStyle = 'rgb(148 170 210 / 22%)';
    c.lineWidth = 1;
    c.strokeRect(pad + 0.5, pad + 0.5, side, side);
    c.fillStyle = 'rgb(148 172 225 / 75%)';
    const dot = width > 120 ? 2 : 1.4;
    for (let n = 0; n + 1 < this.#points.length; n += 2) {
      const x = pad + ((this.#points[n] ?? 0) / 256) * side;
      const y = pad + ((this.#points[n + 1] ?? 0) / 256) * side;
      c.fillRect(x - dot / 2, y - dot / 2, dot, dot);
    }
    if (!own) return;
    const x = pad + own.x * side;
    const y = pad + own.y * side;
    c.strokeStyle = 'rgb(94 242 200 / 45%)';
    c.strokeRect(
      x - (own.width * side) / 2,
      y - (own.height * side) / 2,
      own.width * side,
      own.height * side,
    );
    c.fillStyle = OWN_COLOR;
    c.beginPath();
    c.arc(x, y, dot + 1.6, 0, 2 * Math.PI);
    c.fill();
  }
}
