//! Element types, as ONNX's `TensorProto.DataType` numbers them (IR version 14).
//!
//! Every type can be carried; lsqc computes with those that [`Element`] is implemented for.

use half::{bf16, f16};

macro_rules! dtypes {
    ($($(#[$doc:meta])* $variant:ident = $code:literal, $name:literal, $bits:expr;)*) => {
        /// An ONNX element type.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(i32)]
        pub enum DType { $($(#[$doc])* $variant = $code,)* }

        impl DType {
            /// Every element type that the schema knows.
            pub const ALL: &[DType] = &[$(DType::$variant,)*];

            /// The type with this `TensorProto.DataType` number.
            #[must_use]
            pub fn from_code(code: i32) -> Option<DType> {
                match code { $($code => Some(DType::$variant),)* _ => None }
            }

            /// The name in ONNX's textual syntax.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(DType::$variant => $name,)* }
            }

            /// The type with this name in ONNX's textual syntax.
            #[must_use]
            pub fn from_name(name: &str) -> Option<DType> {
                match name { $($name => Some(DType::$variant),)* _ => None }
            }

            /// Bits of one element; `None` for strings. Types under 8 bits are packed, low bits first.
            #[must_use]
            pub fn bits(self) -> Option<usize> {
                match self { $(DType::$variant => $bits,)* }
            }
        }
    };
}

dtypes! {
    /// IEEE 754 single precision.
    F32 = 1, "float", Some(32);
    /// Unsigned 8 bits.
    U8 = 2, "uint8", Some(8);
    /// Signed 8 bits.
    I8 = 3, "int8", Some(8);
    /// Unsigned 16 bits.
    U16 = 4, "uint16", Some(16);
    /// Signed 16 bits.
    I16 = 5, "int16", Some(16);
    /// Signed 32 bits.
    I32 = 6, "int32", Some(32);
    /// Signed 64 bits.
    I64 = 7, "int64", Some(64);
    /// Byte strings.
    String = 8, "string", None;
    /// Booleans, a byte each.
    Bool = 9, "bool", Some(8);
    /// IEEE 754 half precision.
    F16 = 10, "float16", Some(16);
    /// IEEE 754 double precision.
    F64 = 11, "double", Some(64);
    /// Unsigned 32 bits.
    U32 = 12, "uint32", Some(32);
    /// Unsigned 64 bits.
    U64 = 13, "uint64", Some(64);
    /// Complex, two singles.
    C64 = 14, "complex64", Some(64);
    /// Complex, two doubles.
    C128 = 15, "complex128", Some(128);
    /// Brain float.
    BF16 = 16, "bfloat16", Some(16);
    /// 8-bit float, 4 exponent bits, finite.
    F8E4M3FN = 17, "float8e4m3fn", Some(8);
    /// 8-bit float, 4 exponent bits, finite, no negative zero.
    F8E4M3FNUZ = 18, "float8e4m3fnuz", Some(8);
    /// 8-bit float, 5 exponent bits.
    F8E5M2 = 19, "float8e5m2", Some(8);
    /// 8-bit float, 5 exponent bits, finite, no negative zero.
    F8E5M2FNUZ = 20, "float8e5m2fnuz", Some(8);
    /// Unsigned 4 bits, two to a byte.
    U4 = 21, "uint4", Some(4);
    /// Signed 4 bits, two to a byte.
    I4 = 22, "int4", Some(4);
    /// 4-bit float, two to a byte.
    F4E2M1 = 23, "float4e2m1", Some(4);
    /// 8-bit exponent.
    F8E8M0 = 24, "float8e8m0", Some(8);
    /// Unsigned 2 bits, four to a byte.
    U2 = 25, "uint2", Some(2);
    /// Signed 2 bits, four to a byte.
    I2 = 26, "int2", Some(2);
    /// 6-bit float, 2 exponent bits, four to three bytes.
    F6E2M3 = 27, "float6e2m3", Some(6);
    /// 6-bit float, 3 exponent bits, four to three bytes.
    F6E3M2 = 28, "float6e3m2", Some(6);
}

impl DType {
    /// The `TensorProto.DataType` number.
    #[must_use]
    pub fn code(self) -> i32 {
        self as i32
    }

    /// Is this one of the IEEE or brain float types that arithmetic is defined on?
    #[must_use]
    pub fn is_float(self) -> bool {
        matches!(self, DType::F16 | DType::BF16 | DType::F32 | DType::F64)
    }

    /// Bytes that `count` elements take; `None` for strings, and where it overflows.
    #[must_use]
    pub fn byte_len(self, count: usize) -> Option<usize> {
        Some(count.checked_mul(self.bits()?)?.div_ceil(8))
    }
}

impl std::fmt::Display for DType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// A Rust type that holds one element of a tensor.
pub trait Element: bytemuck::Pod + Send + Sync {
    /// The ONNX type.
    const DTYPE: DType;
}

macro_rules! elements {
    ($($rust:ty => $dtype:ident),* $(,)?) => {
        $(impl Element for $rust { const DTYPE: DType = DType::$dtype; })*
    };
}

elements! {
    f32 => F32, f64 => F64, f16 => F16, bf16 => BF16,
    i8 => I8, i16 => I16, i32 => I32, i64 => I64,
    u8 => U8, u16 => U16, u32 => U32, u64 => U64,
}
