/** Every page sees about the same area of the arena, whatever its shape: nobody gains by a larger window. */
const VIEW_UNITS = 1_020;
/** No corner lies farther than the server looks (interest.rs). */
const CORNER_MAX_UNITS = 930;

export class Camera {
  x = 0;
  y = 0;
  width = 1;
  height = 1;
  /** CSS pixels per unit. */
  scale = 1;

  resize(width: number, height: number): void {
    this.width = width;
    this.height = height;
    this.scale = Math.max(
      Math.sqrt(width * height) / VIEW_UNITS,
      Math.hypot(width, height) / 2 / CORNER_MAX_UNITS,
    );
  }

  screenX(x: number): number {
    return (x - this.x) * this.scale + this.width / 2;
  }

  screenY(y: number): number {
    return (y - this.y) * this.scale + this.height / 2;
  }
}
