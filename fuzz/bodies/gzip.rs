//! Fuzz body for gzip. The input is decompressed with several limits, and compressed and
//! decompressed again.

use etcd_edge::wire::gzip::{self, GzipError};

/// Largest output that is decompressed.
const MAX: usize = 1 << 16;

pub(crate) fn run(data: &[u8]) {
    check_decompression(data);
    check_round_trip(data);
}

/// Each limit only decides whether the output is too large. The start of the output is the same for
/// all of them.
fn check_decompression(data: &[u8]) {
    let whole = gzip::decompress(data, MAX);
    for max in [0, 1, 100, 5000, MAX - 1] {
        let limited = gzip::decompress(data, max);
        match (&whole, &limited) {
            (Ok(whole), Ok(limited)) => {
                assert_eq!(whole, limited);
                assert!(limited.len() <= max);
            }
            (Ok(whole), Err(error)) => {
                assert_eq!(*error, GzipError::TooLarge);
                assert!(whole.len() > max);
            }
            (Err(error), Err(limited)) => {
                // The limit may be exceeded before the fault.
                assert!(limited == error || *limited == GzipError::TooLarge);
            }
            (Err(_), Ok(_)) => panic!("a smaller limit accepts more"),
        }
        let Some(start) = gzip::decompress_prefix(data, max) else {
            assert!(matches!(whole, Err(GzipError::Header(_))));
            continue;
        };
        assert!(start.len() <= max && start.capacity() <= max);
        if let Ok(whole) = &whole {
            // The start ends with the first member.
            assert!(whole.starts_with(&start));
        }
    }
    if let Ok(whole) = &whole {
        assert!(whole.len() <= MAX);
        // Members are concatenated.
        let twice = gzip::decompress(&[data, data].concat(), 2 * MAX);
        assert_eq!(twice, Ok([&whole[..], whole].concat()));
        for cut in [1, 8, 9] {
            let cut = data.len().saturating_sub(cut);
            // Only the end of an earlier member is an end, too.
            if let Ok(part) = gzip::decompress(&data[..cut], MAX) {
                assert!(whole.starts_with(&part));
            }
        }
    }
}

fn check_round_trip(data: &[u8]) {
    let (first, second) = data.split_at(data.len() / 3);
    let compressed = gzip::compress([first, second], Vec::new());
    let back = gzip::decompress(&compressed, data.len());
    assert_eq!(back.as_deref(), Ok(data));
    if let Some(less) = data.len().checked_sub(1) {
        assert_eq!(
            gzip::decompress(&compressed, less),
            Err(GzipError::TooLarge)
        );
    }
    let end = compressed.len();
    assert!(gzip::decompress(&compressed[..end - 1], MAX).is_err());
}
