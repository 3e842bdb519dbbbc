//! Normalisations of every kind, with random inputs: for the scalar version against a naive one, and for the kernel
//! against the scalar version.

use tickrt::{DataType, IoMode, Layout, NonFinite, Normalization, Normalizer, Stats, TensorInfo};

pub struct Case {
    pub what: Normalization,
    pub shape: Vec<i64>,
    pub normalizer: Normalizer,
    pub input: Vec<u8>,
}

/// A small generator (xorshift64*): the same cases every time.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
    pub fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

pub fn cases(count: usize) -> Vec<Case> {
    let mut random = Random(0x7469_636b_7274_2121);
    (0..count).map(|number| case(number, &mut random)).collect()
}

fn case(number: usize, random: &mut Random) -> Case {
    use DataType::{F16, F32, F64, I16, I32, U8};
    let input_type = [F32, F64, F16, U8, I16, I32][number % 6];
    let output_type = if (number / 6).is_multiple_of(2) { F32 } else { F16 };
    let (channels, height, width) =
        (1 + random.below(9) as i64, 1 + random.below(12) as i64, 1 + random.below(40) as i64);
    let shape = match random.below(4) {
        0 => vec![1, channels * height * width],
        1 => vec![1, channels, height],
        2 => vec![2, channels, height, width],
        _ => vec![1, channels, height, width],
    };
    let layout = if random.below(2) == 0 || shape.len() < 3 { Layout::AsIs } else { Layout::ChannelsLastToFirst };
    let mut pairs = |count: i64| -> (Vec<f64>, Vec<f64>) {
        (0..count).map(|_| (random.unit() * 20.0 - 10.0, random.unit() * 5.0 + 0.1)).unzip()
    };
    let last = if layout == Layout::AsIs { *shape.last().unwrap() } else { shape[1] };
    let stats = match number % 4 {
        0 => Stats::None,
        1 => {
            let (mean, std) = pairs(1);
            Stats::PerTensor { mean: [mean[0]], std: [std[0]] }
        }
        2 => {
            let (mean, std) = pairs(last);
            Stats::PerFeature { mean, std }
        }
        _ => {
            let (mean, std) = pairs(shape[1]);
            Stats::PerChannel { mean, std }
        }
    };
    let mut what = Normalization::new("input", input_type).stats(stats).layout(layout);
    what = match random.below(3) {
        0 => what.non_finite(NonFinite::Pass),
        1 => what.non_finite(NonFinite::Replace(0.25)),
        _ => what.non_finite(NonFinite::Refuse),
    };
    if random.below(2) == 0 {
        what = what.clamp(-2.0, 3.0);
    }
    let tensor = TensorInfo { name: "input".into(), mode: IoMode::Input, data_type: output_type, shape: shape.clone() };
    let normalizer = Normalizer::new(&what, &tensor, &shape, None).unwrap();
    let spoilt = random.below(3) == 0;
    let mut input = Vec::with_capacity(normalizer.input_bytes());
    for _ in 0..normalizer.count() {
        let x = random.unit() * 60.0 - 30.0;
        let bad = spoilt && random.below(17) == 0;
        let bad = |value: f64| {
            if bad { [f64::NAN, f64::INFINITY, f64::NEG_INFINITY][value.to_bits() as usize % 3] } else { value }
        };
        match input_type {
            F32 => input.extend((bad(x) as f32).to_le_bytes()),
            F64 => input.extend(bad(x).to_le_bytes()),
            F16 => input.extend(half::f16::from_f64(bad(x)).to_le_bytes()),
            U8 => input.push(random.next() as u8),
            I16 => input.extend((random.next() as i16).to_le_bytes()),
            _ => input.extend((random.next() as i32).to_le_bytes()),
        }
    }
    Case { what, shape, normalizer, input }
}
