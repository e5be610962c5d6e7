//! The encoding of one value: little-endian integers, length-prefixed text and lists, a tag byte
//! before each enum. In: values. Out: bytes, and back. A reader accepts bytes after the last field
//! it knows, so that a later version may append fields to a message.
//! Never: panics or allocates by a length it has not seen bytes for.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Why bytes are not the message they should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DecodeError {
    /// The bytes end inside a value.
    Truncated,
    /// A tag byte or a flag has no meaning in this version.
    UnknownTag { what: &'static str, tag: u8 },
    /// Text is not UTF-8.
    NotUtf8,
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated => f.write_str("the message ends inside a value"),
            Self::UnknownTag { what, tag } => write!(f, "unknown {what} {tag}"),
            Self::NotUtf8 => f.write_str("text is not UTF-8"),
        }
    }
}

impl std::error::Error for DecodeError {}

/// Bytes still to be read.
#[derive(Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
    fn take(&mut self, count: usize) -> Result<&'a [u8], DecodeError> {
        let (head, tail) = self.bytes.split_at_checked(count).ok_or(DecodeError::Truncated)?;
        self.bytes = tail;
        Ok(head)
    }
    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        self.take(N)?.try_into().map_err(|_| DecodeError::Truncated)
    }
}

/// A value with a byte form.
pub trait Wire: Sized {
    fn put(&self, out: &mut Vec<u8>);
    fn get(reader: &mut Reader<'_>) -> Result<Self, DecodeError>;

    fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.put(&mut out);
        out
    }
    fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        Self::get(&mut Reader::new(bytes))
    }
}

macro_rules! wire_integer {
    ($($type:ty),+) => {$(
        impl Wire for $type {
            fn put(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_le_bytes());
            }
            fn get(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
                Ok(<$type>::from_le_bytes(reader.array()?))
            }
        }
    )+};
}
wire_integer!(u8, u16, u32, u64, i32);

impl Wire for bool {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(u8::from(*self));
    }
    fn get(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        match u8::get(reader)? {
            0 => Ok(false),
            1 => Ok(true),
            tag => Err(DecodeError::UnknownTag { what: "truth value", tag }),
        }
    }
}

/// Lengths are u32; nothing we send comes near that.
fn put_length(length: usize, out: &mut Vec<u8>) {
    u32::try_from(length).unwrap_or(u32::MAX).put(out);
}

impl Wire for String {
    fn put(&self, out: &mut Vec<u8>) {
        put_length(self.len(), out);
        out.extend_from_slice(self.as_bytes());
    }
    fn get(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let length = u32::get(reader)? as usize;
        let bytes = reader.take(length)?.to_vec();
        String::from_utf8(bytes).map_err(|_| DecodeError::NotUtf8)
    }
}

impl<T: Wire> Wire for Option<T> {
    fn put(&self, out: &mut Vec<u8>) {
        self.is_some().put(out);
        if let Some(value) = self {
            value.put(out);
        }
    }
    fn get(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(if bool::get(reader)? { Some(T::get(reader)?) } else { None })
    }
}

impl<T: Wire> Wire for Vec<T> {
    fn put(&self, out: &mut Vec<u8>) {
        put_length(self.len(), out);
        for value in self {
            value.put(out);
        }
    }
    fn get(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let length = u32::get(reader)?;
        let mut list = Vec::new();
        for _ in 0..length {
            list.push(T::get(reader)?);
        }
        Ok(list)
    }
}

impl Wire for IpAddr {
    fn put(&self, out: &mut Vec<u8>) {
        match self {
            Self::V4(ip) => {
                out.push(4);
                out.extend_from_slice(&ip.octets());
            }
            Self::V6(ip) => {
                out.push(6);
                out.extend_from_slice(&ip.octets());
            }
        }
    }
    fn get(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        match u8::get(reader)? {
            4 => Ok(Self::V4(Ipv4Addr::from(reader.array::<4>()?))),
            6 => Ok(Self::V6(Ipv6Addr::from(reader.array::<16>()?))),
            tag => Err(DecodeError::UnknownTag { what: "address family", tag }),
        }
    }
}

/// Declares a struct whose byte form is its fields in order.
macro_rules! wire_struct {
    ($(#[$doc:meta])* $name:ident { $($(#[$fdoc:meta])* $field:ident: $type:ty),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub struct $name { $($(#[$fdoc])* pub $field: $type),* }
        impl $crate::codec::Wire for $name {
            fn put(&self, _out: &mut Vec<u8>) {
                $($crate::codec::Wire::put(&self.$field, _out);)*
            }
            fn get(_reader: &mut $crate::codec::Reader<'_>) -> Result<Self, $crate::codec::DecodeError> {
                Ok(Self { $($field: $crate::codec::Wire::get(_reader)?),* })
            }
        }
    };
}
pub(crate) use wire_struct;

/// Declares an enum whose byte form is a tag byte and, where there is one, the variant's value.
macro_rules! wire_enum {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $tag:literal => $variant:ident $(($type:ty))?),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq)]
        // A message lives from the socket to its handler: no list of them is ever kept.
        #[allow(clippy::large_enum_variant)]
        pub enum $name { $($(#[$vdoc])* $variant $(($type))?),+ }
        impl $crate::codec::Wire for $name {
            fn put(&self, out: &mut Vec<u8>) {
                match self {
                    $(wire_enum!(@pattern value $variant $(($type))?) => {
                        out.push($tag);
                        $(<$type as $crate::codec::Wire>::put(value, out);)?
                    })+
                }
            }
            fn get(reader: &mut $crate::codec::Reader<'_>) -> Result<Self, $crate::codec::DecodeError> {
                match <u8 as $crate::codec::Wire>::get(reader)? {
                    $($tag => Ok(Self::$variant $((<$type as $crate::codec::Wire>::get(reader)?))?),)+
                    tag => Err($crate::codec::DecodeError::UnknownTag { what: stringify!($name), tag }),
                }
            }
        }
    };
    (@pattern $value:ident $variant:ident ($type:ty)) => { Self::$variant($value) };
    (@pattern $value:ident $variant:ident) => { Self::$variant };
}
pub(crate) use wire_enum;
