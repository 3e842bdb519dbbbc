//! Compiles the bridge.

fn main() {
    cxx_build::bridge("src/lib.rs").std("c++17").compile("tickrt_neighbour_bridge");
    println!("cargo:rerun-if-changed=src/lib.rs");
}
