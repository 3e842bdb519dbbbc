// Behind the source of a resident engine: runs one turn of it, from beginning to end.
namespace tickrt {
namespace resident {
namespace emulated {

inline void body(u32 low, u32 high) {
  Fiber* fiber = reinterpret_cast<Fiber*>(u64(high) << 32 | low);
  tickrt_resident(*turn_to_run);
  fiber->ended = true;
  for (;;) yield();
}

}  // namespace emulated
}  // namespace resident
}  // namespace tickrt

// Shared memory holds rubbish at first. The number of fibers that never ended, after a turn that should have been over.
extern "C" unsigned tickrt_run_turn(const tickrt::resident::Turn* turn, unsigned blocks, unsigned threads, unsigned long long seed) {
  using namespace tickrt::resident;
  using namespace tickrt::resident::emulated;
  Machine here;
  machine = &here;
  turn_to_run = turn;
  here.blocks = blocks, here.threads = threads, here.random = seed * 2 + 1;
  here.meetings.resize(blocks);
  here.meetings_of_some.resize(blocks);
  here.warps.assign(blocks, std::vector<Warp>(threads / 32));
  here.fibers.resize(size_t(blocks) * threads);
  const size_t stacks = here.fibers.size() * kStackBytes;
  char* stack = static_cast<char*>(mmap(nullptr, stacks, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
  if (stack == MAP_FAILED) return ~0u;
  std::vector<std::unique_ptr<unsigned char[]>> memory;
  for (u32 block = 0; block < blocks; ++block) {
    memory.emplace_back(new unsigned char[kSharedBytes + 16]);
    memset(memory.back().get(), 0xff, kSharedBytes + 16);
    here.shared.push_back(reinterpret_cast<unsigned char*>((reinterpret_cast<uintptr_t>(memory.back().get()) + 15) & ~uintptr_t(15)));
  }
  for (size_t i = 0; i < here.fibers.size(); ++i) {
    Fiber& fiber = here.fibers[i];
    fiber.block = u32(i / threads), fiber.thread = u32(i % threads), fiber.ended = false;
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = stack + i * kStackBytes;
    fiber.context.uc_stack.ss_size = kStackBytes;
    fiber.context.uc_link = nullptr;
    const u64 address = reinterpret_cast<u64>(&fiber);
    makecontext(&fiber.context, reinterpret_cast<void (*)()>(body), 2, u32(address), u32(address >> 32));
  }
  const u64 until = nanoseconds() + turn->limit_ns + 20000000000ull;
  u32 left = u32(here.fibers.size());
  while (left && nanoseconds() < until) {
    left = 0;
    // Blocks in another order each time.
    const u32 from = here.next_random() % blocks;
    for (u32 k = 0; k < blocks; ++k) {
      for (u32 thread = 0; thread < threads; ++thread) {
        Fiber& fiber = here.fibers[size_t((from + k) % blocks) * threads + thread];
        if (fiber.ended) continue;
        ++left;
        here.running = &fiber;
        swapcontext(&here.scheduler, &fiber.context);
      }
    }
    here.deliver();
  }
  munmap(stack, stacks);
  machine = nullptr;
  return left;
}
