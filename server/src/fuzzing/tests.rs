//! The bodies over seeded input: random bytes, and good input with mistakes in it. `cargo fuzz` goes on where this ends;
//! see `fuzz/README.md`.

use super::*;

/// xorshift64*: the same inputs on every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }

    fn bytes(&mut self, max: usize) -> Vec<u8> {
        (0..self.below(max)).map(|_| self.next() as u8).collect()
    }

    fn mutate(&mut self, bytes: &mut Vec<u8>) {
        for _ in 0..=self.below(4) {
            let at = self.below(bytes.len());
            match self.below(4) {
                0 => bytes.insert(at, self.next() as u8),
                _ if bytes.is_empty() => {}
                1 => drop(bytes.remove(at)),
                2 => bytes[at] ^= 1 << self.below(8),
                _ => bytes[at] = self.next() as u8,
            }
        }
    }

    /// A first byte, and then some of `parts`, with or without mistakes, or anything at all.
    fn input(&mut self, parts: &[Vec<u8>]) -> Vec<u8> {
        let mut input = vec![self.next() as u8];
        if self.below(4) == 0 {
            input.extend(self.bytes(100));
            return input;
        }
        for _ in 0..=self.below(5) {
            input.extend(&parts[self.below(parts.len())]);
        }
        if self.below(4) > 0 {
            self.mutate(&mut input);
        }
        input
    }
}

/// Type, length and payload, as capsules and the frames of HTTP/3 have them.
fn block(kind: u64, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for number in [kind, payload.len() as u64] {
        match number {
            0..0x40 => out.push(number as u8),
            0x40..0x4000 => out.extend((number as u16 | 0x4000).to_be_bytes()),
            _ => out.extend((number as u32 | 0x8000_0000).to_be_bytes()),
        }
    }
    out.extend(payload);
    out
}

/// Every opening of the vectors, good and bad, as [`opening`] takes it; those with the longest tokens are left out, since
/// mistakes in them are mistakes in their tokens.
fn openings() -> Vec<Vec<u8>> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../protocol/vectors/opening.json");
    let text = std::fs::read_to_string(path).expect(path);
    let vectors: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let rows = ["valid", "invalid"].map(|list| vectors[list].as_array().expect("a list"));
    let mut all = Vec::new();
    for row in rows.into_iter().flatten() {
        let texts = |name: &str| row[name].as_array().cloned();
        let join = |lines: Vec<String>| lines.join("\n").into_bytes();
        if let Some(query) = row["query"].as_str() {
            all.push([&[0], query.as_bytes()].concat());
        }
        if let Some(offers) = texts("protocols") {
            let offers = offers.iter().map(|offer| offer.as_str().expect("a text").to_owned());
            all.push([vec![1], join(offers.collect())].concat());
        }
        if let Some(headers) = texts("headers") {
            let line = |pair: &serde_json::Value| Some(format!("{}:{}", pair[0].as_str()?, pair[1].as_str()?));
            let mut lines: Vec<_> = headers.iter().map(|pair| line(pair).expect("two texts")).collect();
            all.push([vec![2], join(lines.clone())].concat());
            lines.push(String::from("Throughline-Link:3"));
            all.push([vec![2], join(lines)].concat());
        }
    }
    all.retain(|input| input.len() < 1_000);
    assert!(all.len() > 100);
    all
}

#[test]
fn openings_of_every_kind() {
    let (mut random, vectors) = (Random(1), openings());
    vectors.iter().for_each(|vector| opening(vector));
    for round in 0..10_000 {
        let mut input = vectors[random.below(vectors.len())].clone();
        if round % 8 == 0 {
            input.truncate(1);
            input.extend(random.bytes(200));
        } else {
            random.mutate(&mut input);
        }
        opening(&input);
    }
}

#[test]
fn websocket_frames_of_every_kind() {
    let mut random = Random(5);
    // With a mask of zeros, so that what is inside is what is seen.
    let frame = |first: u8, payload: &[u8]| [&[first, 0x80 | payload.len() as u8, 0, 0, 0, 0], payload].concat();
    let long = [&[0x82, 0xfe, 1, 0, 0, 0, 0, 0][..], &[7; 256]].concat();
    let parts = [
        frame(0x82, b"a packet"),
        frame(0x02, b"a part"),
        frame(0x00, b"another"),
        frame(0x80, b"the last"),
        frame(0x89, b"ping"),
        frame(0x8a, b""),
        frame(0x88, b"\x03\xe8bye"),
        long,
    ];
    for _ in 0..10_000 {
        frames(&random.input(&parts));
    }
}

#[test]
fn capsules_of_every_kind() {
    let mut random = Random(2);
    let parts = [
        block(0x2843, b"\0\0\x0f\xa1sp\xc3\xa4t"),
        block(0x2843, b"\0\0\0\0"),
        block(0x2843, b"\0\0\0\x07\xff\xfe"),
        block(0x00, b"datagram"),
        block(0x78ae, b""),
        block(0x190b_4d3d, &[7; 300]),
    ];
    (0..10_000).for_each(|_| capsules(&random.input(&parts)));
}

#[test]
fn first_bytes_of_every_kind() {
    let mut random = Random(3);
    let parts: Vec<Vec<u8>> = [
        &b"\x40\x41"[..],
        b"\x40\x54",
        b"\x80\0\0\x41",
        b"\xc0\0\0\0\0\0\0\x54",
        b"\x04",
        b"\x40\x80",
        b"\xc0\0\0\0\0\0\0\x08",
        b"\x01\x05hello",
        b"\x03",
    ]
    .map(<[u8]>::to_vec)
    .into();
    (0..10_000).for_each(|_| probe(&random.input(&parts)));
}

#[test]
fn frames_of_every_kind() {
    let mut random = Random(4);
    let parts = [
        block(0x00, b""),
        block(0x00, b"body"),
        block(0x01, b"headers"),
        block(0x04, b"\x01\x10"),
        block(0x0d, b"\x05"),
        block(0x21, b"grease"),
        block(0x41, b""),
        block(0x01, &[7; 65]),
        block(0x00, &[7; 300]),
    ];
    (0..10_000).for_each(|_| gate(&random.input(&parts)));
}
