//! What is compiled in, what is installed, and what would be used.

use std::path::PathBuf;

use super::{Flavour, Library, Version, candidates, not_compiled_in, open_checked};
use crate::error::Result;
use crate::library::Preference;

/// One flavour, and every library of it that was looked for.
#[derive(Debug, Clone)]
pub struct Surveyed {
    /// Which flavour.
    pub flavour: Flavour,
    /// The version of the headers that it was compiled against; none if it was not.
    pub headers: Option<Version>,
    /// Every place that was tried, in order.
    pub places: Vec<Place>,
}

/// A place where a library was looked for.
#[derive(Debug, Clone)]
pub struct Place {
    /// What dlopen was given: a path, or a soname to be found by the dynamic linker.
    pub name: String,
    /// The library's version and the file that it was loaded from, or why it is not used.
    pub found: Result<(Version, PathBuf), String>,
}

impl Surveyed {
    /// The library that this flavour would use.
    #[must_use]
    pub fn usable(&self) -> Option<(Version, &PathBuf)> {
        self.places.iter().find_map(|place| place.found.as_ref().ok()).map(|(version, path)| (*version, path))
    }
}

impl Library {
    /// Looks for a library of every flavour, wherever [`open_any`](Self::open_any) would, and opens what it finds: any
    /// number of flavours can be open in one process.
    #[must_use]
    pub fn survey() -> Vec<Surveyed> {
        Flavour::ALL.into_iter().map(look_for).collect()
    }

    /// The library that [`Preference::Any`] takes, or why there is none.
    ///
    /// # Errors
    /// As [`open_any`](Self::open_any).
    pub fn preferred() -> Result<Self> {
        Self::open_any(&Preference::Any)
    }
}

fn look_for(flavour: Flavour) -> Surveyed {
    let place = |name: String| {
        let found = match open_checked(&name) {
            _ if flavour.headers().is_none() => Err(not_compiled_in(flavour)),
            Ok(opened) if opened.flavour == flavour => Ok((opened.version, opened.path.into())),
            Ok(opened) => Err(format!("{} is {}, not {flavour}", opened.path, opened.version)),
            Err(error) => Err(error.to_string()),
        };
        Place { name, found }
    };
    Surveyed { flavour, headers: flavour.headers(), places: candidates(flavour).into_iter().map(place).collect() }
}
