#ifndef QUIVER_ENGINE_SCHEDULE_COST_MODEL_H_
#define QUIVER_ENGINE_SCHEDULE_COST_MODEL_H_

#include <array>
#include <cstdint>

namespace quiver {

// What a pass costs: a fixed time, a time a token, and a time a pair of tokens of one sequence (its
// attention). Learned from passes that ran, by least squares of the relative error over
// non-negative coefficients; what is older counts less, but passes observed with `keep` count
// forever. One pass that took far longer than the others, or far less, moves it little. A value:
// copies are independent. Not thread-safe.
class CostModel {
 public:
  // The size of a pass as far as its cost goes.
  struct Work {
    int64_t tokens = 0;
    // Sum over the sequences of their length squared; of one whose first tokens are not computed,
    // without the square of those.
    int64_t pairs = 0;

    // With a sequence of `length` tokens to compute, after `before` that are not.
    Work With(int64_t length, int64_t before = 0) const {
      return {tokens + length, pairs + length * (length + 2 * before)};
    }
  };

  // A pass took `us` microseconds. Ignored unless both are positive and finite.
  void Observe(const Work& work, double us, bool keep = false);

  // 0 while nothing has been observed.
  double PredictUs(const Work& work) const;

  // The same had the pass been a part of one of `batch_tokens` tokens, whose parts share the fixed
  // time. As passes that were all small say too little of a token in a full one, it is no less than
  // what passes observed with `keep` alone would say.
  double PredictShareUs(const Work& work, int64_t batch_tokens) const;

  // The three coefficients, in microseconds.
  double fixed_us() const { return coefficients_[0]; }
  double token_us() const { return coefficients_[1]; }
  double pair_us() const { return coefficients_[2]; }

 private:
  static constexpr int kTerms = 3;
  // The normal equations of a weighted least-squares fit.
  struct Sums {
    std::array<std::array<double, kTerms>, kTerms> squares = {};
    std::array<double, kTerms> products = {};
  };

  using Coefficients = std::array<double, kTerms>;

  static double Predict(const Coefficients& coefficients, double batches, const Work& work);
  // `fallback` if nothing fits.
  static Coefficients Fit(const Sums& sums, const Coefficients& fallback);

  Sums kept_;
  Sums recent_;
  // Passes seen, up to as many as make it trust itself.
  int observed_ = 0;
  Coefficients coefficients_ = {};
  // Of kept_ alone.
  Coefficients kept_coefficients_ = {};
};

}  // namespace quiver

#endif  // QUIVER_ENGINE_SCHEDULE_COST_MODEL_H_
