//! histogram.h: latencies, kept so that their tail can be told.

use std::time::Duration;

use hdrhistogram::Histogram;
use tickrt::{Error, ErrorKind};

use crate::argument::{Place, given, invalid};
use crate::error::{Fault, MaybeError, discard, guard};

/// `tickrt_histogram`: from a nanosecond to an hour, to three digits.
#[derive(Debug)]
pub struct CHistogram(Histogram<u64>);

const LONGEST: Duration = Duration::from_secs(3600);
const DIGITS: u8 = 3;

/// `histogram.h`: none yet.
#[unsafe(no_mangle)]
pub extern "C" fn tickrt_histogram_new(histogram: Place<'_, Box<CHistogram>>) -> MaybeError {
    guard(|| {
        let place = given(histogram, "histogram")?;
        let made = Histogram::new_with_bounds(1, LONGEST.as_nanos() as u64, DIGITS).map_err(internal)?;
        place.write(Box::new(CHistogram(made)));
        Ok(())
    })
}

fn internal(error: impl std::fmt::Display) -> Fault {
    Error::new(ErrorKind::InvalidArgument, "use a latency histogram").got(error.to_string()).into()
}

/// `histogram.h`: frees it.
#[unsafe(no_mangle)]
pub extern "C" fn tickrt_histogram_free(histogram: Option<Box<CHistogram>>) {
    discard(histogram);
}

/// `histogram.h`: adds one latency. Data plane: allocates nothing, cannot fail.
#[unsafe(no_mangle)]
pub extern "C" fn tickrt_histogram_record_ns(histogram: Option<&mut CHistogram>, latency_ns: u64) {
    if let Some(histogram) = histogram {
        histogram.0.saturating_record(latency_ns);
    }
}

/// `histogram.h`: forgets all of them.
#[unsafe(no_mangle)]
pub extern "C" fn tickrt_histogram_reset(histogram: Option<&mut CHistogram>) {
    if let Some(histogram) = histogram {
        histogram.0.reset();
    }
}

/// `histogram.h`: adds all of another's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tickrt_histogram_add(histogram: *mut CHistogram, other: *const CHistogram) -> MaybeError {
    guard(|| {
        if !histogram.is_null() && std::ptr::eq(histogram, other) {
            return Err(invalid("other", "another histogram", "the same"));
        }
        // SAFETY: the header's contract: each is NULL or a histogram, and they are two.
        let (histogram, other) = unsafe { (histogram.as_mut(), other.as_ref()) };
        given(histogram, "histogram")?.0.add(&given(other, "other")?.0).map_err(internal)
    })
}

/// `histogram.h`: how many.
#[unsafe(no_mangle)]
pub extern "C" fn tickrt_histogram_count(histogram: Option<&CHistogram>) -> u64 {
    histogram.map_or(0, |histogram| histogram.0.len())
}

/// `histogram.h`: the latency that a share of them did not exceed.
#[unsafe(no_mangle)]
pub extern "C" fn tickrt_histogram_quantile_ns(
    histogram: Option<&CHistogram>,
    share: f64,
    latency_ns: Place<'_, u64>,
) -> MaybeError {
    guard(|| {
        let (histogram, place) = (given(histogram, "histogram")?, given(latency_ns, "latency_ns")?);
        if !(0.0..=1.0).contains(&share) {
            return Err(invalid("share", "0 to 1", share.to_string()));
        }
        place.write(histogram.0.value_at_quantile(share));
        Ok(())
    })
}

/// `histogram.h`: the longest.
#[unsafe(no_mangle)]
pub extern "C" fn tickrt_histogram_max_ns(histogram: Option<&CHistogram>) -> u64 {
    histogram.map_or(0, |histogram| histogram.0.max())
}

/// `histogram.h`: the mean.
#[unsafe(no_mangle)]
pub extern "C" fn tickrt_histogram_mean_ns(histogram: Option<&CHistogram>) -> f64 {
    histogram.map_or(0.0, |histogram| histogram.0.mean())
}
