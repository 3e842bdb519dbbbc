//! Another library made with cxx: what stands beside tickrt in a trading program, as far as the linker can tell.

#[cxx::bridge]
mod ffi {
    extern "Rust" {
        fn shout(text: &str) -> String;
    }
}

fn shout(text: &str) -> String {
    text.to_uppercase()
}

/// How long `HELLO` is: a Rust allocation, a panic machinery and cxx's runtime, all of this library's own.
#[unsafe(no_mangle)]
pub extern "C" fn neighbour_answer() -> u32 {
    u32::try_from(shout("hello").len()).unwrap_or(0)
}
