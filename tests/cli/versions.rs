//! `tickrt versions`, and which of several installed TensorRTs is taken. The libraries are stand-ins that tell a version and no
//! more: enough for everything that comes before the first call of TensorRT's own.

use std::process::Command;

use serde_json::Value;
use tickrt::Flavour;

use crate::support::{Tool, model};

/// A library that says it is of version `number`, as getInferLibVersion tells it; `false` where nothing compiles C.
fn stand_in(tool: &Tool, folder: &str, file: &str, number: u32) -> bool {
    std::fs::create_dir_all(tool.path(folder)).unwrap();
    let source = tool.file("stand_in.c", format!("int getInferLibVersion(void) {{ return {number}; }}\n").as_bytes());
    let out = tool.path(folder).join(file);
    let ran = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(out).arg(tool.path(&source)).status();
    ran.is_ok_and(|status| status.success())
}

fn survey(tool: &Tool) -> Value {
    serde_json::from_str(&tool.run(&["versions", "--json"]).must(0, &[]).stdout).unwrap()
}

/// What was found of a flavour: its version, or the last reason.
fn found<'a>(survey: &'a Value, flavour: &str) -> &'a str {
    let flavours = survey["flavours"].as_array().unwrap();
    let places = flavours.iter().find(|one| one["flavour"] == flavour).unwrap()["places"].as_array().unwrap();
    let version = places.iter().find_map(|place| place["version"].as_str());
    version.or_else(|| places.last()?["reason"].as_str()).unwrap()
}

fn compiled(flavour: Flavour) -> bool {
    Flavour::compiled_in().contains(&flavour)
}

/// 10 and 11 side by side in one installation; 10 is newer than any header set.
fn two_majors() -> Option<Tool> {
    let tool = Tool::new().with("TICKRT_SDK", "/nowhere").with("LD_LIBRARY_PATH", "");
    let made = stand_in(&tool, "root/lib", "libnvinfer.so.10", 109_901)
        && stand_in(&tool, "root/lib", "libnvinfer.so.11", 110_400);
    if !made || !compiled(Flavour::Trt10) || !compiled(Flavour::Trt11) {
        assert!(std::env::var_os("TICKRT_REQUIRE_SDK").is_none(), "a C compiler and the headers of TensorRT 10 and 11");
        return None;
    }
    let root = tool.path("root").display().to_string();
    Some(tool.with("TENSORRT_ROOT", &root))
}

#[test]
fn several_majors_side_by_side_are_found_and_the_newest_is_used() {
    let Some(tool) = two_majors() else { return };
    let survey = survey(&tool);
    assert_eq!(found(&survey, "trt10"), "10.99.1", "newer than the headers, of the same ABI");
    assert_eq!(found(&survey, "trt11"), "11.4.0");
    assert!(found(&survey, "rtx").contains("libtensorrt_rtx.so.1"), "{survey}");
    assert_eq!(survey["uses"]["version"], "11.4.0");
    tool.run(&["versions"]).must(0, &["10.99.1", "the first in order"]);
}

#[test]
fn order_and_path_can_be_set() {
    let Some(tool) = two_majors() else { return };
    let tool = tool.with("TICKRT_TENSORRT", "trt8,trt10,trt11");
    assert_eq!(survey(&tool)["uses"]["version"], "10.99.1");
    tool.run(&["versions"]).must(0, &["the first of TICKRT_TENSORRT=trt8,trt10,trt11"]);

    assert!(stand_in(&tool, "elsewhere", "libnvinfer.so.10", 101_600));
    let elsewhere = tool.path("elsewhere").display().to_string();
    let tool = tool.with("TICKRT_TENSORRT", &elsewhere);
    assert_eq!(found(&survey(&tool), "trt10"), "10.16.0", "the path comes before TENSORRT_ROOT");
    assert_eq!(survey(&tool)["uses"]["version"], "10.16.0");
    let file = format!("{elsewhere}/libnvinfer.so.10");
    let tool = tool.with("TICKRT_TENSORRT", &file);
    assert_eq!(survey(&tool)["uses"]["path"], file);

    let tool = tool.with("TICKRT_TENSORRT", "trt9");
    assert!(survey(&tool)["uses"]["reason"].as_str().unwrap().contains("`trt9`"));
    let onnx = model("toy_cnn.onnx");
    let tool = tool.with("TICKRT_TENSORRT", "");
    tool.run(&["build", "--onnx", &onnx, "--engine", "x.engine", "--tensorrt=trt8,/nowhere/x.so"])
        .must(3, &["one of the 2", "libnvinfer.so.8", "/nowhere/x.so"]);
}

#[test]
fn library_that_no_header_set_fits_is_refused_with_the_reason() {
    let Some(tool) = two_majors() else { return };
    // The file's name says 10; the library itself is asked.
    for (number, says) in [(120_000, "TensorRT 12.0.0"), (8_503, "TensorRT 8.5.3"), (90_200, "TensorRT 9.2.0")] {
        assert!(stand_in(&tool, "odd", "libnvinfer.so.10", number));
        let odd = tool.path("odd/libnvinfer.so.10").display().to_string();
        let onnx = model("toy_cnn.onnx");
        tool.run(&["build", "--onnx", &onnx, "--engine", "x.engine", &format!("--tensorrt={odd}")])
            .must(3, &[says, "fits"]);
    }
}
