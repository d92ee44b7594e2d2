//! A blob written as its bytes come.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::bounds::MAX_PART;
use super::{Blob, BlobError, Blobs, When};

/// A blob on its way into the store. It is there once [`Self::finish`] has answered; an upload that
/// is dropped before leaves nothing that anybody sees.
#[derive(Debug)]
pub struct Upload {
    blobs: Arc<dyn Blobs>,
    blob: Blob,
    /// Bytes of the next block.
    waiting: BytesMut,
    blocks: u32,
    length: u64,
}

impl Upload {
    /// Begins one.
    pub fn new(blobs: Arc<dyn Blobs>, blob: Blob) -> Self {
        Self {
            blobs,
            blob,
            waiting: BytesMut::new(),
            blocks: 0,
            length: 0,
        }
    }

    /// Bytes taken so far.
    pub const fn length(&self) -> u64 {
        self.length
    }

    /// Takes more bytes.
    ///
    /// # Errors
    /// Those of [`Blobs::stage`]; the upload is of no use then.
    pub async fn write(&mut self, mut bytes: &[u8]) -> Result<(), BlobError> {
        while !bytes.is_empty() {
            let room = MAX_PART.saturating_sub(self.waiting.len());
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.waiting.extend_from_slice(now);
            self.length += u64::try_from(now.len()).unwrap_or_default();
            bytes = later;
            if self.waiting.len() == MAX_PART {
                self.stage().await?;
            }
        }
        Ok(())
    }

    /// Makes the blob of what was taken, in the place of one that is there. Its length, bytes.
    ///
    /// # Errors
    /// Those of [`Blobs::put`], [`Blobs::stage`] and [`Blobs::commit`].
    pub async fn finish(mut self) -> Result<u64, BlobError> {
        if self.blocks == 0 {
            let bytes: Bytes = self.waiting.freeze();
            self.blobs.put(&self.blob, bytes, When::Always).await?;
            return Ok(self.length);
        }
        if !self.waiting.is_empty() {
            self.stage().await?;
        }
        self.blobs.commit(&self.blob, self.blocks).await?;
        Ok(self.length)
    }

    async fn stage(&mut self) -> Result<(), BlobError> {
        let block = std::mem::take(&mut self.waiting).freeze();
        self.blobs.stage(&self.blob, self.blocks, block).await?;
        self.blocks += 1;
        Ok(())
    }
}
