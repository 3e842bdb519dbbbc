// All of tickrt for C++17. Header only, over the C API; needs libtickrt.a or libtickrt.so of the same version.
#pragma once

#include "builder.hpp"
#include "clock.h"
#include "config.hpp"
#include "histogram.hpp"
#include "predictor.hpp"
#include "result.hpp"
#include "session.hpp"
#include "span.hpp"
#include "trust.hpp"
#include "version.h"
