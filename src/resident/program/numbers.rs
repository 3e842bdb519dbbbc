//! Numbers as the templates take them.

use std::fmt::Write as _;

use crate::resident::network::Activation;

/// Numbers of a structure that a template takes.
#[derive(Default)]
pub(super) struct Numbers(pub(super) String);

impl Numbers {
    pub(super) fn int(mut self, name: &str, value: impl TryInto<u32>) -> Self {
        let value = value.try_into().ok().expect("sizes that fit 32 bits");
        let _ = writeln!(self.0, "  static constexpr u32 {name} = {value};");
        self
    }

    pub(super) fn truth(mut self, name: &str, value: bool) -> Self {
        let _ = writeln!(self.0, "  static constexpr bool {name} = {value};");
        self
    }

    pub(super) fn float(mut self, name: &str, value: f32) -> Self {
        let _ = writeln!(self.0, "  static constexpr float {name} = {};", literal(value));
        self
    }

    pub(super) fn text(mut self, text: &str) -> Self {
        self.0 += text;
        self
    }

    pub(super) fn function(self, activation: Option<Activation>) -> Self {
        let (name, alpha) = function(activation);
        self.text(&format!("  static constexpr Function function = Function::{name};\n")).float("alpha", alpha)
    }
}

/// The function's name in functions.cuh, and its constant.
pub(super) fn function(activation: Option<Activation>) -> (&'static str, f32) {
    match activation {
        None => ("None", 0.0),
        Some(Activation::Relu) => ("Relu", 0.0),
        Some(Activation::Tanh) => ("Tanh", 0.0),
        Some(Activation::Sigmoid) => ("Sigmoid", 0.0),
        Some(Activation::Gelu) => ("Gelu", 0.0),
        Some(Activation::GeluTanh) => ("GeluTanh", 0.0),
        Some(Activation::LeakyRelu(alpha)) => ("LeakyRelu", alpha),
        Some(Activation::Elu(alpha)) => ("Elu", alpha),
    }
}

/// A float as C++ has it, to the bit.
pub(super) fn literal(x: f32) -> String {
    if !x.is_finite() {
        // What nvcc, NVRTC and host compilers all take for a constant.
        return format!("__builtin_bit_cast(float, {:#010x}u)", x.to_bits());
    }
    format!("{x:e}f")
}
