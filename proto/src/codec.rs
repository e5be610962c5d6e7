//! The codec of all methods: protobuf, in buffers that begin small and grow with what is sent.
//! In: tonic's generated code (build.rs names it). Out: the encoders and decoders of `tonic-prost`.
//! tonic's own begin with 8 KiB for each direction of each call, and a control plane holds thousands of sessions.
//! Never: another format.

use prost::Message;
use std::marker::PhantomData;
use tonic::codec::{BufferSettings, Codec};
use tonic_prost::ProstCodec;

/// Most messages of a session are below this.
const BUFFER_BYTES: usize = 1 << 10;
/// tonic's own: so much is put together before it is given to the transport.
const YIELD_BYTES: usize = 32 << 10;

/// Protobuf with small buffers.
#[derive(Debug, Clone)]
pub(crate) struct SmallCodec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for SmallCodec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> Codec for SmallCodec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = <ProstCodec<T, U> as Codec>::Encoder;
    type Decoder = <ProstCodec<T, U> as Codec>::Decoder;

    fn encoder(&mut self) -> Self::Encoder {
        ProstCodec::<T, U>::raw_encoder(BufferSettings::new(BUFFER_BYTES, YIELD_BYTES))
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstCodec::<T, U>::raw_decoder(BufferSettings::new(BUFFER_BYTES, YIELD_BYTES))
    }
}
