//! Finding TensorRT's headers and compiling cpp/flavour.cc once for each set.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;

use crate::{NO_UNIQUE, is_file, leave_out, vars};

/// Where Debian's and Ubuntu's packages put the headers.
const SYSTEM_INCLUDE: &str = "/usr/include/x86_64-linux-gnu";
/// The least version of each major that the shim is written for.
const LEAST: [(&str, u32, u32); 4] = [("trt8", 8, 6), ("trt10", 10, 0), ("trt11", 11, 0), ("rtx", 1, 5)];

/// One set of headers that was found; after [`compile_all`], one that was compiled.
pub(crate) struct Flavour {
    name: &'static str,
    version: [u32; 3],
    include: PathBuf,
}

impl Flavour {
    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    /// Where its headers lie.
    pub(crate) fn include(&self) -> &Path {
        &self.include
    }

    /// The static library's name.
    pub(crate) fn library(&self) -> String {
        format!("tickrt_{}", self.name)
    }
}

/// Compiles what is found, one thread a flavour; those that don't compile are left out as well.
pub(crate) fn compile_all(out: &Path) -> Vec<Flavour> {
    if vars::is_docs_rs() {
        return Vec::new();
    }
    let found = find();
    thread::scope(|scope| {
        let jobs: Vec<_> = found.into_iter().map(|flavour| scope.spawn(|| compile(flavour, out))).collect();
        jobs.into_iter().filter_map(|job| job.join().ok().flatten()).collect()
    })
}

fn compile(flavour: Flavour, out: &Path) -> Option<Flavour> {
    // cc names objects after the source's path: without a folder of its own each flavour would overwrite the last.
    let folder = out.join(flavour.name);
    let name = flavour.name;
    let compiled = fs::create_dir_all(&folder).map_err(|error| error.to_string()).and_then(|()| {
        cc::Build::new()
            .cpp(true)
            .std("c++17")
            .file("cpp/flavour.cc")
            .out_dir(&folder)
            .cargo_metadata(false)
            .warnings(true)
            .extra_warnings(true)
            .flag("-Wno-deprecated-declarations")
            .flag_if_supported(NO_UNIQUE)
            // As system headers, so that the warnings shown are about our code.
            .flag(format!("-isystem{}", flavour.include.display()))
            .flag("-isystemcpp/standin")
            .define("nvinfer1", Some(format!("nvinfer1_{name}").as_str()))
            .define("nvonnxparser", Some(format!("nvonnxparser_{name}").as_str()))
            .define("TICKRT_FLAVOUR", Some(name))
            .try_compile(&flavour.library())
            .map_err(|error| error.to_string())
    });
    match compiled {
        Ok(()) => {
            println!("cargo:rustc-link-search=native={}", folder.display());
            Some(flavour)
        }
        Err(error) => {
            let headers = flavour.include.display();
            let first = error.lines().next().unwrap_or_default();
            leave_out(&part(name), &format!("{headers} did not compile ({first})"), "use headers of another version");
            None
        }
    }
}

/// The headers to use for each flavour; says which flavours are left out.
fn find() -> Vec<Flavour> {
    let sets: Vec<Flavour> = candidates().iter().filter_map(|folder| read(folder)).collect();
    let mut found = Vec::new();
    for (name, ..) in LEAST {
        // The first one wins: candidates come in the order of their rank.
        match sets.iter().find(|set| set.name == name) {
            Some(set) => {
                println!("cargo:rerun-if-changed={}", set.include.join("NvInferVersion.h").display());
                found.push(Flavour { name, version: set.version, include: set.include.clone() });
            }
            // scripts/setup does not fetch them.
            None if name == "trt8" => leave_out(
                &format!("{} (optional)", part(name)),
                "its headers were not found",
                "set TICKRT_TRT8_INCLUDE to a folder with NvInfer.h of 8.6, or TENSORRT_ROOT",
            ),
            None => leave_out(&part(name), "its headers were not found", "run scripts/setup or set TENSORRT_ROOT"),
        }
    }
    if found.is_empty() {
        // A path that isn't there makes cargo run this again each time, until scripts/setup has been.
        println!("cargo:rerun-if-changed={}", vars::sdk().join("include").display());
    }
    found
}

fn part(name: &str) -> String {
    match name {
        "rtx" => "TensorRT-RTX".to_owned(),
        _ => format!("TensorRT {}", name.trim_start_matches("trt")),
    }
}

/// Folders that may hold headers, by rank: what the user names, what scripts/setup fetched (newest first), the
/// system's.
fn candidates() -> Vec<PathBuf> {
    let named = vars::tensorrt_root().map(|root| root.join("include"));
    let mut fetched: Vec<PathBuf> = fs::read_dir(vars::sdk().join("include"))
        .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
        .unwrap_or_default();
    fetched.sort_by_key(|folder| std::cmp::Reverse(read(folder).map(|set| set.version)));
    let mut all: Vec<PathBuf> = named.into_iter().chain(vars::trt8_include()).collect();
    all.extend(fetched);
    all.push(PathBuf::from(SYSTEM_INCLUDE));
    all
}

/// Which flavour a folder's headers are of; none where they are incomplete or of a version without a shim.
fn read(include: &Path) -> Option<Flavour> {
    let complete = ["NvInfer.h", "NvOnnxParser.h"].iter().all(|name| is_file(&include.join(name)));
    let text = fs::read_to_string(include.join("NvInferVersion.h")).ok().filter(|_| complete)?;
    let defines: HashMap<&str, &str> = text.lines().filter_map(define).collect();
    let number = |name: &str| value(&defines, name);
    let version = [number("NV_TENSORRT_MAJOR")?, number("NV_TENSORRT_MINOR")?, number("NV_TENSORRT_PATCH")?];
    // TensorRT-RTX says NV_TENSORRT_MAJOR 1 of itself, and is known by its own macro.
    let is_rtx = number("TRT_MAJOR_RTX").is_some();
    let known = LEAST
        .iter()
        .find(|&&(name, major, minor)| (name == "rtx") == is_rtx && version[0] == major && version[1] >= minor);
    known.map(|&(name, ..)| Flavour { name, version, include: include.to_owned() })
}

/// `#define NAME VALUE` as its two words.
fn define(line: &str) -> Option<(&str, &str)> {
    let mut words = line.split_whitespace();
    (words.next()? == "#define").then_some(())?;
    Some((words.next()?, words.next()?))
}

/// A macro's number; one that names another macro is followed (a few steps: headers are not to hang the build).
fn value(defines: &HashMap<&str, &str>, name: &str) -> Option<u32> {
    let mut text = *defines.get(name)?;
    for _ in 0..4 {
        match text.parse() {
            Ok(number) => return Some(number),
            Err(_) => text = defines.get(text)?,
        }
    }
    None
}
