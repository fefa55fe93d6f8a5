import { element } from './dom.js';
import { encodeInput } from './wire.js';

export interface Stick {
  /** Where the finger went down, and where it is, CSS pixels. */
  fromX: number;
  fromY: number;
  x: number;
  y: number;
}

const SEND_EVERY_MS = 33;
/** A change is sent this often again: a datagram may be lost. */
const REPEATS = 3;
/** A held course is repeated, so that the server knows that somebody is there (ship.rs). */
const KEEP_EVERY_MS = 450;
/** After this long without a touch the page falls silent, and the autopilot takes over. */
const IDLE_AFTER_MS = 10_000;
/** A dash is held this long, so that at least one of its datagrams arrives. */
const DASH_HOLD_MS = 120;
const STICK_REACH = 56;

const KEYS: Readonly<Record<string, readonly [number, number]>> = {
  KeyW: [0, -1],
  ArrowUp: [0, -1],
  KeyS: [0, 1],
  ArrowDown: [0, 1],
  KeyA: [-1, 0],
  ArrowLeft: [-1, 0],
  KeyD: [1, 0],
  ArrowRight: [1, 0],
};

/** Keyboard, mouse and touch, as one helm. */
export class Controls {
  angle = 0;
  thrust = 0;
  stick: Stick | null = null;
  #canvas: HTMLCanvasElement;
  #held = new Set<string>();
  #mouse: { x: number; y: number } | null = null;
  #stickPointer = -1;
  #dashUntil = 0;
  #touchedAt = Number.NEGATIVE_INFINITY;
  #sequence = 0;
  #sentAt = 0;
  #sentText = '';
  #repeats = 0;

  constructor(canvas: HTMLCanvasElement) {
    this.#canvas = canvas;
    window.addEventListener('keydown', (event) => this.#keyDown(event));
    window.addEventListener('keyup', (event) => this.#held.delete(event.code));
    window.addEventListener('blur', () => this.#release());
    canvas.addEventListener('pointerdown', (event) => this.#pointerDown(event));
    canvas.addEventListener('pointermove', (event) => this.#pointerMove(event));
    canvas.addEventListener('pointerup', (event) => this.#pointerUp(event));
    canvas.addEventListener('pointercancel', (event) => this.#pointerUp(event));
    canvas.addEventListener('pointerleave', (event) => {
      if (event.pointerType === 'mouse') this.#mouse = null;
    });
    canvas.addEventListener('contextmenu', (event) => event.preventDefault());
    element('dash').addEventListener('pointerdown', (event) => {
      event.preventDefault();
      this.#dash();
    });
  }

  /** Whether somebody steers, or has just done so. */
  isActive(now: number): boolean {
    return now - this.#touchedAt < IDLE_AFTER_MS;
  }

  /** The datagram to send now, or null: at most 30 per second, and only when there is something to say. */
  poll(now: number): Uint8Array | null {
    if (this.#held.size > 0 || this.stick) this.#touchedAt = now;
    this.#aim();
    const dash = now < this.#dashUntil;
    const text = `${Math.round(this.angle * 40)} ${Math.round(this.thrust * 16)} ${dash}`;
    if (text !== this.#sentText) this.#repeats = REPEATS;
    const since = now - this.#sentAt;
    const isDue = this.#repeats > 0 ? since >= SEND_EVERY_MS : this.thrust > 0 && since >= KEEP_EVERY_MS;
    if (!isDue || !this.isActive(now)) return null;
    this.#sentText = text;
    this.#sentAt = now;
    this.#repeats = Math.max(0, this.#repeats - 1);
    this.#sequence = (this.#sequence + 1) & 0xffff;
    return encodeInput(this.#sequence, this.angle, this.thrust, dash);
  }

  #aim(): void {
    let x = 0;
    let y = 0;
    for (const code of this.#held) {
      x += KEYS[code]?.[0] ?? 0;
      y += KEYS[code]?.[1] ?? 0;
    }
    if (x !== 0 || y !== 0) {
      this.#point(x, y, 1);
    } else if (this.stick) {
      const { fromX, fromY } = this.stick;
      const [dx, dy] = [this.stick.x - fromX, this.stick.y - fromY];
      const length = Math.hypot(dx, dy);
      if (length > 8) this.#point(dx, dy, Math.min(1, length / STICK_REACH));
      else this.thrust = 0;
    } else if (this.#mouse && this.#held.size === 0) {
      const dx = this.#mouse.x - this.#canvas.clientWidth / 2;
      const dy = this.#mouse.y - this.#canvas.clientHeight / 2;
      const length = Math.hypot(dx, dy);
      this.#point(dx, dy, length < 24 ? 0 : Math.min(1, length / 170));
    } else {
      this.thrust = 0;
    }
  }

  #point(x: number, y: number, thrust: number): void {
    this.angle = Math.atan2(y, x);
    this.thrust = thrust;
  }

  #dash(): void {
    this.#touchedAt = performance.now();
    this.#dashUntil = this.#touchedAt + DASH_HOLD_MS;
  }

  #keyDown(event: KeyboardEvent): void {
    if (event.target instanceof HTMLInputElement || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.code in KEYS) {
      this.#held.add(event.code);
      this.#mouse = null;
      event.preventDefault();
    } else if (event.code === 'Space' && !(event.target instanceof HTMLButtonElement)) {
      if (!event.repeat) this.#dash();
      event.preventDefault();
    }
  }

  #pointerDown(event: PointerEvent): void {
    event.preventDefault();
    this.#canvas.focus({ preventScroll: true });
    if (event.pointerType === 'mouse') {
      this.#mouse = { x: event.clientX, y: event.clientY };
      this.#dash();
    } else if (this.stick) {
      this.#dash(); // a second finger
    } else {
      this.#stickPointer = event.pointerId;
      this.stick = { fromX: event.clientX, fromY: event.clientY, x: event.clientX, y: event.clientY };
      this.#canvas.setPointerCapture?.(event.pointerId);
    }
  }

  #pointerMove(event: PointerEvent): void {
    this.#touchedAt = performance.now();
    if (event.pointerType === 'mouse') {
      this.#mouse = { x: event.clientX, y: event.clientY };
    } else if (this.stick && event.pointerId === this.#stickPointer) {
      this.stick.x = event.clientX;
      this.stick.y = event.clientY;
    }
  }

  #pointerUp(event: PointerEvent): void {
    if (event.pointerId === this.#stickPointer) {
      this.#stickPointer = -1;
      this.stick = null;
    }
  }

  #release(): void {
    this.#held.clear();
    this.#mouse = null;
    this.stick = null;
    this.#stickPointer = -1;
  }
}
