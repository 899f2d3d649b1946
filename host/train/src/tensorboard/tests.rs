//! The file is read back by a decoder that shares no code with the writer: its own bitwise CRC and protobuf fields.

use super::*;

/// CRC-32C bit by bit, from the reflected Castagnoli polynomial.
fn slow_crc(data: &[u8]) -> u32 {
    let mut c = !0u32;
    for b in data {
        c ^= u32::from(*b);
        for _ in 0..8 {
            c = if c & 1 == 1 { (c >> 1) ^ 0x82f6_3b78 } else { c >> 1 };
        }
    }
    !c
}

fn unmask(m: u32) -> u32 {
    m.wrapping_sub(0xa282_ead8).rotate_left(15)
}

fn records(mut bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut out = Vec::new();
    while !bytes.is_empty() {
        let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
        assert_eq!(unmask(word(8)), slow_crc(&bytes[..8]));
        let n = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        let payload = &bytes[12..12 + n];
        assert_eq!(unmask(word(12 + n)), slow_crc(payload));
        out.push(payload.to_vec());
        bytes = &bytes[16 + n..];
    }
    out
}

/// Field number and bytes of each field: 8 for doubles, 4 for floats, the value's bytes for varints.
fn fields(mut b: &[u8]) -> Vec<(u64, Vec<u8>)> {
    fn varint(b: &mut &[u8]) -> u64 {
        let mut value = 0;
        for i in 0.. {
            let byte = b[0];
            *b = &b[1..];
            value |= u64::from(byte & 127) << (7 * i);
            if byte < 128 {
                break;
            }
        }
        value
    }
    let mut out = Vec::new();
    while !b.is_empty() {
        let key = varint(&mut b);
        let n = match key & 7 {
            0 => {
                out.push((key >> 3, varint(&mut b).to_le_bytes().to_vec()));
                continue;
            }
            1 => 8,
            2 => varint(&mut b) as usize,
            5 => 4,
            other => panic!("wire type {other}"),
        };
        out.push((key >> 3, b[..n].to_vec()));
        b = &b[n..];
    }
    out
}

fn field(b: &[u8], number: u64) -> Vec<u8> {
    fields(b).into_iter().find(|(n, _)| *n == number).unwrap().1
}

#[test]
fn the_checksum_is_the_published_one() {
    assert_eq!(slow_crc(b"123456789"), 0xe306_9283);
    assert_eq!(crc32c::crc32c(b"123456789"), 0xe306_9283);
}

#[test]
fn an_event_file_says_what_was_written() {
    let dir = tempfile::tempdir().unwrap();
    let mut e = EventFile::create(dir.path()).unwrap();
    e.scalars(7, [("train/loss", 0.25), ("eval/accuracy", 1.0)]).unwrap();
    e.scalars(300, [("train/loss", 0.125)]).unwrap();
    assert!(e.path().file_name().unwrap().to_str().unwrap().starts_with("events.out.tfevents."));
    let all = records(&std::fs::read(e.path()).unwrap());
    assert_eq!(all.len(), 3);
    assert_eq!(field(&all[0], 3), b"brain.Event:2");
    assert!(f64::from_le_bytes(field(&all[1], 1).try_into().unwrap()) > 1.6e9);
    assert_eq!(field(&all[1], 2), 7u64.to_le_bytes());
    assert_eq!(field(&all[2], 2), 300u64.to_le_bytes());
    let values: Vec<(String, f32)> = fields(&field(&all[1], 5))
        .iter()
        .map(|(n, v)| {
            assert_eq!(*n, 1);
            let tag = String::from_utf8(field(v, 1)).unwrap();
            (tag, f32::from_le_bytes(field(v, 2).try_into().unwrap()))
        })
        .collect();
    assert_eq!(values, [("train/loss".to_string(), 0.25), ("eval/accuracy".to_string(), 1.0)]);
}
