/* All of tickrt for C. */
#ifndef TICKRT_TICKRT_H
#define TICKRT_TICKRT_H

#include "builder.h"
#include "clock.h"
#include "config.h"
#include "engine.h"
#include "error.h"
#include "histogram.h"
#include "normalization.h"
#include "predictor.h"
#include "session.h"
#include "trust.h"
#include "types.h"
#include "version.h"

#endif
