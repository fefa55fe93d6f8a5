import { fitCanvas } from './dom.js';
import { SAMPLES_MAX } from './metrics.js';

/** Draws the ages as a filled line, and answers the peak. The scale is at least 100 ms, so that calm looks calm. */
export function drawSparkline(canvas: HTMLCanvasElement, ages: readonly number[], color: string): number {
  const c = fitCanvas(canvas);
  if (!c) return 0;
  const width = canvas.clientWidth;
  const height = canvas.clientHeight;
  const peak = Math.max(0, ...ages);
  const top = Math.max(100, peak * 1.1);
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
  if (ages.length < 2) return peak;
  const x = (index: number): number => width - ((ages.length - 1 - index) / (SAMPLES_MAX - 1)) * width;
  const y = (age: number): number => height - 1 - (age / top) * (height - 3);
  c.beginPath();
  ages.forEach((age, index) => {
    c.lineTo(x(index), y(age));
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
