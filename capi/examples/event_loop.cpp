// An event loop in C++: reads ticks from a file, pushes each row into its symbol's rolling window, submits without
// blocking, polls between other work, and acts within a deadline.
//
//   event_loop MODEL.onnx NORMALIZATION.json TICKS [ENGINE]
//
// Errors at start are exceptions here (`value()`), those of the loop are values.
#include <tickrt/tickrt.hpp>

#include <algorithm>
#include <array>
#include <cstdio>
#include <fstream>
#include <iostream>

namespace {

constexpr std::uint32_t kSymbols = 64;
constexpr std::size_t kFeatures = 8;
constexpr std::chrono::milliseconds kDeadline{5};

struct Tick {
    std::uint32_t symbol;
    std::array<float, kFeatures> row;
};

bool read(std::istream &ticks, Tick &tick) {
    ticks >> tick.symbol;
    for (float &feature : tick.row) {
        ticks >> feature;
    }
    return static_cast<bool>(ticks);
}

tickrt::Predictor start(int argc, char **argv) {
    tickrt::Config config;
    config.windows(kSymbols, kFeatures).normalization(tickrt::Normalization::read(argv[2]).value());
    tickrt::Chain chain;
    if (argc > 4) {
        chain.tensorrt(argv[4]);
    }
    chain.ort_cpu(argv[1]);
    tickrt::Predictor predictor = tickrt::Predictor::start(chain, std::move(config)).value();
    for (std::size_t i = 0; i < predictor.passed_over_count().value(); ++i) {
        std::cerr << "passed over: " << predictor.passed_over(i).value().reason << '\n';
    }
    return predictor;
}

class Loop {
  public:
    explicit Loop(tickrt::Predictor predictor)
        : predictor_(std::move(predictor)), latencies_(tickrt::Histogram::make().value()) {}

    void run(std::istream &ticks) {
        Tick tick;
        while (read(ticks, tick)) {
            on_tick(tick);
            // What a loop does besides comes here; the answer is looked at in between.
            poll();
        }
        while (in_flight_) {
            poll();
        }
    }

    void report() const {
        std::cout << "acted " << acted_[0] << ' ' << acted_[1] << ' ' << acted_[2] << " late " << late_ << '\n';
        std::cerr << "p99 " << latencies_.quantile(0.99).value().count() << " ns\n";
    }

  private:
    void on_tick(const Tick &tick) {
        const auto deadline = tickrt::Clock::now() + kDeadline;
        predictor_.push(tick.symbol, tickrt::Span<const float>(tick.row)).value();
        if (in_flight_) {
            // One question at a time: the tick that came meanwhile finds the last answer first.
            settle();
        }
        auto ticket = predictor_.submit_window(tick.symbol, tick.symbol);
        if (ticket.code() == TICKRT_WINDOW_NOT_FULL) {
            return;
        }
        ticket_ = std::move(ticket).value();
        deadline_ = deadline;
        in_flight_ = true;
    }

    // Returns at once.
    void poll() {
        if (!in_flight_) {
            return;
        }
        if (tickrt::Clock::now() >= deadline_) {
            settle();
            return;
        }
        auto answer = predictor_.poll(ticket_, tickrt::Span<float>(scores_));
        if (answer && !*answer) {
            return;
        }
        in_flight_ = false;
        const std::optional<tickrt::Answer> found = std::move(answer).value();
        act(*found);
    }

    // Until the deadline, and no longer.
    void settle() {
        in_flight_ = false;
        auto answer = predictor_.wait_until(ticket_, deadline_, tickrt::Span<float>(scores_));
        if (answer.code() == TICKRT_DEADLINE_MISSED || answer.code() == TICKRT_UNAVAILABLE) {
            ++late_;
            return;
        }
        act(std::move(answer).value());
    }

    void act(const tickrt::Answer &answer) {
        latencies_.record(tickrt::latency(answer));
        ++acted_[static_cast<std::size_t>(std::max_element(scores_.begin(), scores_.end()) - scores_.begin())];
    }

    tickrt::Predictor predictor_;
    tickrt::Histogram latencies_;
    tickrt::Ticket ticket_{};
    tickrt::Clock::time_point deadline_;
    bool in_flight_ = false;
    std::array<float, 3> scores_{};
    std::array<unsigned long, 3> acted_{};
    unsigned long late_ = 0;
};

} // namespace

int main(int argc, char **argv) {
    if (argc < 4) {
        std::cerr << "usage: event_loop MODEL.onnx NORMALIZATION.json TICKS [ENGINE]\n";
        return 2;
    }
    try {
        std::ifstream ticks(argv[3]);
        Loop loop(start(argc, argv));
        loop.run(ticks);
        loop.report();
    } catch (const tickrt::Exception &error) {
        std::cerr << "error: " << error.what() << '\n';
        return 1;
    }
    return 0;
}
