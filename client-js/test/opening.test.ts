import { describe, expect, it } from 'vitest';
import { locate } from '../src/transport/info.js';
import { type Opening, openingHeaders, openingProtocols, openingUrl } from '../src/transport/opening.js';
import { load } from './vectors.js';
import { World } from './world.js';

interface Vector {
  why: string;
  fields: {
    version: number;
    session?: string;
    key?: string;
    received?: [number, number][];
    token?: string;
    marks?: boolean;
  };
  query?: string;
  protocols?: string[];
  headers?: [string, string][];
  canonical?: boolean;
}

const { valid } = load<{ valid: Vector[] }>('opening.json');

describe('the fields of an opening', () => {
  for (const { why, fields, query, protocols, headers, canonical = true } of valid) {
    const { session, key, received, token, marks } = fields;
    // Only stream 0 exists for this client, and its tokens can travel on every transport.
    const ours =
      canonical &&
      query !== undefined &&
      protocols !== undefined &&
      headers !== undefined &&
      (received?.length ?? 1) === 1;
    it.runIf(ours)(why, () => {
      const opening: Opening = {
        ...plain,
        resumption:
          session === undefined || key === undefined
            ? undefined
            : { session, key, received: (received ?? []).map((pair) => pair.join('.')).join('_') },
        token,
      };
      // This client always asks for marks.
      const asking = marks ? query : `${query}&marks=1`;
      expect(new URL(openingUrl('https://a.test/rt/webtransport', opening)).search).toBe(`?${asking}`);
      expect(openingProtocols(opening)).toEqual(protocols);
      const lower = (pairs: [string, string][]) => pairs.map(([name, value]) => [name.toLowerCase(), value]);
      expect(lower(Object.entries(openingHeaders(opening)))).toEqual(lower(headers ?? []));
    });
  }
});

describe('where WebTransport listens', () => {
  it('at the page itself, without asking, when that is https on its own port', async () => {
    const world = new World();
    expect(await locate(world, { ...plain, base: 'https://a.test/rt' })).toEqual({
      url: 'https://a.test/rt/webtransport',
    });
  });

  it('where /info says, asked once per page', async () => {
    const world = new World();
    let asked = 0;
    world.fetch = async (url) => {
      asked++;
      expect(url).toBe('http://localhost:8080/rt/info');
      return Response.json({
        webtransport: { port: 4433, path: '/rt/webtransport' },
        certificateHashes: ['aGFzaA=='],
      });
    };
    const opening = { ...plain, base: 'http://localhost:8080/rt' };
    const expected = { url: 'https://127.0.0.1:4433/rt/webtransport', certificateHashes: ['aGFzaA=='] };
    expect(await locate(world, opening)).toEqual(expected);
    expect(await locate(world, opening)).toEqual(expected);
    expect(asked).toBe(1);
  });

  it('nowhere, when /info says so; asked again when it could not be asked', async () => {
    const world = new World();
    const opening = { ...plain, base: 'https://a.test:8443/rt' };
    await expect(locate(world, opening)).rejects.toThrow('https://a.test:8443/rt/info: no network');
    world.fetch = async () => Response.json({ webtransport: null });
    expect(await locate(world, opening)).toBeNull();
  });

  it('where the application says', async () => {
    const world = new World();
    const webtransport = { url: 'https://other.test:1/x', certificateHashes: ['aGFzaA=='] };
    expect(await locate(world, { ...plain, webtransport })).toBe(webtransport);
    expect(await locate(world, { ...plain, info: false })).toBeNull();
    expect(await locate(world, { ...plain, base: 'https://a.test:8443/rt', info: false })).toEqual({
      url: 'https://a.test:8443/rt/webtransport',
    });
  });
});

const plain: Opening = {
  base: 'http://a.test/rt',
  resumption: undefined,
  token: undefined,
  webtransport: undefined,
  info: true,
};
