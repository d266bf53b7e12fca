//! Bytes of a client that wait here, at a cost near their number however they came (S1).
//!
//! A chunk from the HTTP/2 layer keeps alive the whole buffer it was read into, and costs a handle:
//! kept as they come, a request of one-byte frames costs thousands of times its size. So small
//! chunks are copied together. The first of a call is kept as it is, since most have no other.
//! How much may be kept is left to the caller.

use bytes::Bytes;

/// Chunks of this size and more are kept as they are.
const LARGE: usize = 4 * 1024;

/// Chunks in their order.
#[derive(Debug, Default)]
pub(in crate::driver) struct ChunkBuffer {
    chunks: Vec<Bytes>,
    /// Small ones after the last of `chunks`, copied.
    small: Vec<u8>,
    bytes: usize,
}

impl ChunkBuffer {
    /// Keeps one more.
    pub(in crate::driver) fn push(&mut self, chunk: Bytes) {
        if chunk.is_empty() {
            return;
        }
        let first = self.bytes == 0;
        self.bytes += chunk.len();
        if first || chunk.len() >= LARGE {
            self.seal();
            self.chunks.push(chunk);
        } else {
            self.small.extend_from_slice(&chunk);
        }
    }

    /// Bytes in all.
    pub(in crate::driver) fn bytes(&self) -> usize {
        self.bytes
    }

    /// All of it, in order.
    pub(in crate::driver) fn chunks(&mut self) -> &[Bytes] {
        self.seal();
        &self.chunks
    }

    /// The same, to take away.
    pub(in crate::driver) fn into_chunks(mut self) -> Vec<Bytes> {
        self.seal();
        self.chunks
    }

    fn seal(&mut self) {
        if !self.small.is_empty() {
            self.chunks.push(std::mem::take(&mut self.small).into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Nothing is lost or moved, whatever the sizes and however often it is looked at.
        #[test]
        fn keeps_the_order(sizes in prop::collection::vec(
            (prop_oneof![0usize..5, LARGE - 1..LARGE + 2], any::<bool>()), 0..40,
        )) {
            let mut kept = ChunkBuffer::default();
            let mut all = Vec::new();
            for (n, (size, look)) in sizes.into_iter().enumerate() {
                let chunk = vec![n as u8; size];
                all.extend_from_slice(&chunk);
                kept.push(chunk.into());
                if look {
                    prop_assert_eq!(kept.chunks().concat(), &all[..]);
                }
            }
            prop_assert_eq!(kept.bytes(), all.len());
            prop_assert_eq!(kept.into_chunks().concat(), all);
        }
    }

    #[test]
    fn one_byte_chunks_cost_one_handle() {
        let mut kept = ChunkBuffer::default();
        let buffer = Bytes::from(vec![1; 1000]);
        (0..1000).for_each(|n| kept.push(buffer.slice(n..=n)));
        kept.push(Bytes::new());
        assert_eq!((kept.bytes(), kept.chunks().len()), (1000, 2));
    }
}
