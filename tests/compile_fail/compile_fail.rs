//! What the compiler must refuse: each file of cases/ has its error beside it.

#[test]
fn misuse_of_sessions_does_not_compile() {
    // These programs need no TensorRT and no kernels, and compile much sooner without.
    // SAFETY: the only test of this binary; no other thread reads the environment.
    unsafe {
        for name in ["TENSORRT_ROOT", "TICKRT_TRT8_INCLUDE", "CUDA_HOME"] {
            std::env::remove_var(name);
        }
        std::env::set_var("TICKRT_SDK", "/nonexistent");
    }
    trybuild::TestCases::new().compile_fail("cases/*.rs");
}
