//! The bodies of the fuzz targets over seeded input: random bytes, and the vectors with mistakes in them.
//! `cargo fuzz` goes on where this ends; see `fuzz/README.md`.

mod common;

#[path = "../fuzz/bodies.rs"]
mod bodies;

use common::{Raw, folder, read};

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
}

/// The bytes of every vector of frames, good and bad, except the largest.
fn vectors() -> Vec<Vec<u8>> {
    let all = bytes_of(&[("frames.json", &["frames", "sequences", "incomplete"][..]), ("invalid.json", &["invalid"])]);
    assert!(all.len() > 80);
    all
}

fn bytes_of(files: &[(&str, &[&str])]) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for (file, lists) in files {
        let value: serde_json::Value = read(&folder().join(file));
        for list in *lists {
            for row in value[*list].as_array().expect("a list") {
                let raw: Raw = serde_json::from_value(row["bytes"].clone()).expect("bytes");
                all.push(raw.bytes().to_vec());
            }
        }
    }
    all.retain(|bytes| bytes.len() < 5_000);
    all
}

#[test]
fn decoder() {
    let (mut random, vectors) = (Random(1), vectors());
    for round in 0..4_000 {
        let mut input = vec![random.next() as u8];
        if round % 4 == 0 {
            input.extend(random.bytes(300));
        } else {
            for _ in 0..=random.below(4) {
                input.extend(&vectors[random.below(vectors.len())]);
            }
            random.mutate(&mut input);
        }
        bodies::decoder(&input);
    }
}

#[test]
fn machine() {
    let (mut random, vectors) = (Random(2), vectors());
    for round in 0..20_000 {
        let mut input = vec![random.next() as u8];
        if round % 2 == 0 {
            // The client's first frame, or WELCOME; and then whatever its application and its owner do.
            let first = if input[0] & 1 == 0 { &[6, 1, 1][..] } else { &vectors[0][..] };
            input.extend([0, first.len() as u8]);
            input.extend(first);
            for _ in 0..random.below(80) {
                if random.below(8) == 0 {
                    input.extend([6, 5, 2, 3, 2, 1, 0]); // on stream 0: an UNSUBSCRIBE
                    input.extend([6, 7, 3, 5, 1, 1, 1, b'a', 2]); // and a REQUEST
                }
                input.extend([8 + random.below(20) as u8]);
                input.extend(random.bytes(9));
            }
            bodies::machine(&input);
            continue;
        }
        for _ in 0..random.below(60) {
            let vector = &vectors[random.below(vectors.len())];
            if round % 4 == 0 || vector.len() > 255 || random.below(3) == 0 {
                input.extend(random.bytes(20));
            } else {
                input.extend([0, vector.len() as u8]);
                input.extend(vector);
            }
        }
        if round % 3 == 0 {
            random.mutate(&mut input);
        }
        bodies::machine(&input);
    }
}

#[test]
fn channel_message() {
    let (mut random, vectors) = (Random(4), bytes_of(&[("channels.json", &["valid", "invalid"])]));
    for round in 0..20_000 {
        let mut input = if round % 8 == 0 { random.bytes(60) } else { vectors[random.below(vectors.len())].clone() };
        random.mutate(&mut input);
        bodies::channel_message(&input);
    }
}

#[test]
fn request_message() {
    let (mut random, vectors) = (Random(5), bytes_of(&[("requests.json", &["valid", "invalid"])]));
    for round in 0..20_000 {
        let mut input = if round % 8 == 0 { random.bytes(60) } else { vectors[random.below(vectors.len())].clone() };
        random.mutate(&mut input);
        bodies::request_message(&input);
    }
}

#[test]
fn text() {
    let mut random = Random(3);
    let id = "AAECAwQFBgcICQoLDA0O_w";
    for _ in 0..4_000 {
        bodies::text(&random.bytes(40));
        let mut input = id.as_bytes().to_vec();
        random.mutate(&mut input);
        bodies::text(&input);
    }
}
