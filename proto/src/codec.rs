//! How messages are encoded: as tonic does it, with less memory set aside for each call.

use std::marker::PhantomData;

use prost::Message;
use tonic::codec::{BufferSettings, Codec};
use tonic_prost::{ProstDecoder, ProstEncoder};

/// Bytes set aside for either direction of a call; longer messages get more when they are there. Most
/// messages fit, and it is small enough for an allocator's caches of each thread: with tonic's own 8 KiB,
/// which glibc has to look for each time, a busy server spent a seventh of its time on that, and a stream
/// that never sends its message cost as much.
const BUFFER_BYTES: usize = 512;
/// A stream of messages is written out when there are so many bytes.
const WRITTEN_AT_BYTES: usize = 32 * 1024;

/// Encodes messages of type `T` and decodes those of type `U`, as protocol buffers. Never blocks.
#[derive(Clone, Copy, Debug)]
pub struct MessageCodec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for MessageCodec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> Codec for MessageCodec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = ProstDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstEncoder::new(BufferSettings::new(BUFFER_BYTES, WRITTEN_AT_BYTES))
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstDecoder::new(BufferSettings::new(BUFFER_BYTES, WRITTEN_AT_BYTES))
    }
}
