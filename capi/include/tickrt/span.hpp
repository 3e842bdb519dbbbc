// A view of elements that lie one after the other: std::span's likeness for C++17.
#pragma once

#include <array>
#include <cstddef>
#include <type_traits>
#include <utility>

namespace tickrt {

template <typename T>
class Span {
  public:
    constexpr Span() noexcept = default;
    constexpr Span(T *data, std::size_t size) noexcept : data_(data), size_(size) {}

    template <std::size_t N>
    constexpr Span(T (&array)[N]) noexcept : Span(array, N) {}

    // Whatever has data() and size(): a vector, an array, a std::span, a Span of what is not const.
    template <typename C,
              typename = std::enable_if_t<!std::is_array_v<std::remove_reference_t<C>> &&
                                          std::is_convertible_v<decltype(std::declval<C &>().data()), T *> &&
                                          std::is_convertible_v<decltype(std::declval<C &>().size()), std::size_t>>>
    constexpr Span(C &&container) noexcept : Span(container.data(), container.size()) {}

    constexpr T *data() const noexcept { return data_; }
    constexpr std::size_t size() const noexcept { return size_; }
    constexpr bool empty() const noexcept { return size_ == 0; }
    constexpr T *begin() const noexcept { return data_; }
    constexpr T *end() const noexcept { return data_ + size_; }
    constexpr T &operator[](std::size_t place) const noexcept { return data_[place]; }

  private:
    T *data_ = nullptr;
    std::size_t size_ = 0;
};

} // namespace tickrt
