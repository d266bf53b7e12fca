//! Buffer of request chunks. Its memory use is close to the number of buffered bytes (S1).
//!
//! A chunk from the HTTP/2 layer needs a handle, and pins the whole buffer that it was read into. A
//! request of one-byte frames, buffered as it arrives, would use thousands of times its size.
//! Small chunks are therefore copied together. The first chunk of a call is not copied, because
//! most calls have only one. The caller bounds the number of buffered bytes.

use bytes::Bytes;

/// Chunks below this size, in bytes, are copied together.
const COPY_BELOW: usize = 4 * 1024;

/// Chunks in their order of arrival.
#[derive(Debug, Default)]
pub(in crate::driver) struct ChunkBuffer {
    chunks: Vec<Bytes>,
    /// Copy of the small chunks that arrived after the last of `chunks`.
    small: Vec<u8>,
    bytes: usize,
}

impl ChunkBuffer {
    /// Appends a chunk.
    pub(in crate::driver) fn push(&mut self, chunk: Bytes) {
        if chunk.is_empty() {
            return;
        }
        let first = self.bytes == 0;
        self.bytes += chunk.len();
        if first || chunk.len() >= COPY_BELOW {
            self.seal();
            self.chunks.push(chunk);
        } else {
            self.small.extend_from_slice(&chunk);
        }
    }

    /// Returns the number of buffered bytes.
    pub(in crate::driver) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns all buffered bytes, in order.
    pub(in crate::driver) fn chunks(&mut self) -> &[Bytes] {
        self.seal();
        &self.chunks
    }

    /// Returns all buffered bytes, in order, and consumes the buffer.
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
        /// No byte is lost or moved, for any chunk sizes and any number of reads in between.
        #[test]
        fn preserves_bytes_and_order(sizes in prop::collection::vec(
            (prop_oneof![0usize..5, COPY_BELOW - 1..COPY_BELOW + 2], any::<bool>()), 0..40,
        )) {
            let mut buffer = ChunkBuffer::default();
            let mut all = Vec::new();
            for (n, (size, read)) in sizes.into_iter().enumerate() {
                let chunk = vec![n as u8; size];
                all.extend_from_slice(&chunk);
                buffer.push(chunk.into());
                if read {
                    prop_assert_eq!(buffer.chunks().concat(), &all[..]);
                }
            }
            prop_assert_eq!(buffer.bytes(), all.len());
            prop_assert_eq!(buffer.into_chunks().concat(), all);
        }
    }

    #[test]
    fn one_byte_chunks_cost_one_handle() {
        let mut buffer = ChunkBuffer::default();
        let source = Bytes::from(vec![1; 1000]);
        (0..1000).for_each(|n| buffer.push(source.slice(n..=n)));
        buffer.push(Bytes::new());
        assert_eq!((buffer.bytes(), buffer.chunks().len()), (1000, 2));
    }
}
