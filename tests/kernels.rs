//! The normalise kernel against the scalar version, bit by bit. Needs a GPU.
#[path = "common/cases.rs"]
mod cases;
mod common;

use tickrt::backend::tensorrt::testing::{self, Through};
use tickrt::{DataType, ErrorKind};

#[test]
fn layout_matches_the_kernels() {
    let Some(device) = common::gpu() else { return };
    let (rust, cuda) = testing::layout(&device).unwrap();
    assert_eq!(
        rust, cuda,
        "SlotHeader, State, NormalizeTensor, NormalizeParams, PublishTensor, PublishParams, Element, SmallParams"
    );
}

#[test]
fn kernel_agrees_with_the_scalar_version_bit_by_bit() {
    let Some(device) = common::gpu() else { return };
    let mut refused = 0;
    for (number, case) in cases::cases(300).iter().enumerate() {
        let mut input = vec![0_u64; case.input.len().div_ceil(8)];
        bytemuck::cast_slice_mut(&mut input)[..case.input.len()].copy_from_slice(&case.input);
        let mut expected = vec![0_u8; case.normalizer.output_bytes()];
        let outcome = case.normalizer.apply(&bytemuck::cast_slice(&input)[..case.input.len()], &mut expected);
        for through in [Through::Any, Through::Session, Through::SessionAhead] {
            let got = testing::normalize(&device, &case.normalizer, &case.input, through).unwrap();
            match (&outcome, got) {
                (Ok(()), Some(got)) => {
                    let half = case.normalizer.output_type() == DataType::F16;
                    let same = common::same_bits(&expected, &got, half);
                    assert!(same, "case {number}, {through:?}: {:?} {:?}", case.what, case.shape);
                }
                (Err(error), None) => {
                    assert_eq!(error.kind(), ErrorKind::NonFiniteInput);
                    refused += 1;
                }
                (scalar, kernel) => panic!("case {number}: {scalar:?}, refused by the kernel: {}", kernel.is_none()),
            }
        }
    }
    assert!(refused > 10, "{refused} refused");
}
