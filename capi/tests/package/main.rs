//! What a C or C++ program gets: headers, archives, package files, examples. Each test uses the tools that such a program
//! is built with.

mod examples;
mod headers;
mod linking;
mod support;
