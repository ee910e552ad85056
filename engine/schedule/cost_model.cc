#include "engine/schedule/cost_model.h"

#include <algorithm>
#include <cmath>

namespace quiver {
namespace {

// What one further pass leaves of the weight of those before it: about the last fifty count.
constexpr double kDecay = 0.98;
// A pass counts as no more than this many times as fast as predicted, once so many were seen.
constexpr double kFastest = 4;
constexpr int kTrusted = 10;
// Relative addition to the diagonal that keeps the elimination regular when passes were all alike.
constexpr double kRidge = 1e-6;

// The terms are scaled to similar sizes, so that one ridge suits them all.
constexpr std::array<double, 3> kScale = {1.0, 1e-3, 1e-6};

}  // namespace

void CostModel::Observe(const Work& work, double us, bool keep) {
  if (!(us > 0) || !std::isfinite(us) || work.tokens <= 0) return;
  // As the relative error counts, a slow pass weighs little by itself, but a fast one would rule.
  if (observed_ < kTrusted) {
    ++observed_;
  } else if (!keep) {
    us = std::max(us, PredictUs(work) / kFastest);
  }
  const std::array<double, kTerms> terms = {kScale[0], kScale[1] * static_cast<double>(work.tokens),
                                            kScale[2] * static_cast<double>(work.pairs)};
  if (!keep) {
    for (int i = 0; i < kTerms; ++i) {
      for (int j = 0; j < kTerms; ++j) recent_.squares[i][j] *= kDecay;
      recent_.products[i] *= kDecay;
    }
  }
  Sums& sums = keep ? kept_ : recent_;
  const double weight = 1 / (us * us);
  for (int i = 0; i < kTerms; ++i) {
    for (int j = 0; j < kTerms; ++j) sums.squares[i][j] += weight * terms[i] * terms[j];
    sums.products[i] += weight * terms[i] * us;
  }
  Sums all = recent_;
  for (int i = 0; i < kTerms; ++i) {
    for (int j = 0; j < kTerms; ++j) all.squares[i][j] += kept_.squares[i][j];
    all.products[i] += kept_.products[i];
  }
  coefficients_ = Fit(all, coefficients_);
  if (keep) kept_coefficients_ = Fit(kept_, kept_coefficients_);
}

// Non-negative least squares of three terms: of the seven sets of terms that may be above zero, the
// one with the smallest error whose unconstrained solution is non-negative.
CostModel::Coefficients CostModel::Fit(const Sums& sums, const Coefficients& fallback) {
  Coefficients best = fallback;
  double best_gain = 0;
  for (int set = 1; set < 1 << kTerms; ++set) {
    // Gauss elimination over the chosen terms.
    std::array<int, kTerms> chosen;
    int n = 0;
    for (int i = 0; i < kTerms; ++i) {
      if (set >> i & 1) chosen[n++] = i;
    }
    double a[kTerms][kTerms + 1];
    for (int r = 0; r < n; ++r) {
      for (int c = 0; c < n; ++c) a[r][c] = sums.squares[chosen[r]][chosen[c]];
      a[r][r] *= 1 + kRidge;
      a[r][n] = sums.products[chosen[r]];
    }
    bool regular = true;
    for (int p = 0; p < n && regular; ++p) {
      if (a[p][p] <= 0) {
        regular = false;
        break;
      }
      for (int r = p + 1; r < n; ++r) {
        const double factor = a[r][p] / a[p][p];
        for (int c = p; c <= n; ++c) a[r][c] -= factor * a[p][c];
      }
    }
    if (!regular) continue;
    Coefficients solution = {};
    for (int r = n - 1; r >= 0; --r) {
      double value = a[r][n];
      for (int c = r + 1; c < n; ++c) value -= a[r][c] * solution[chosen[c]];
      solution[chosen[r]] = value / a[r][r];
    }
    if (*std::min_element(solution.begin(), solution.end()) < 0) continue;
    // How far the weighted squared error falls below that of predicting nothing.
    double gain = 0;
    for (int i = 0; i < kTerms; ++i) {
      gain += 2 * solution[i] * sums.products[i];
      for (int j = 0; j < kTerms; ++j) gain -= solution[i] * solution[j] * sums.squares[i][j];
    }
    if (gain > best_gain) {
      best_gain = gain;
      for (int i = 0; i < kTerms; ++i) best[i] = solution[i] * kScale[i];
    }
  }
  return best;
}

double CostModel::Predict(const Coefficients& coefficients, double batches, const Work& work) {
  return coefficients[0] * batches + coefficients[1] * static_cast<double>(work.tokens) +
         coefficients[2] * static_cast<double>(work.pairs);
}

double CostModel::PredictUs(const Work& work) const { return Predict(coefficients_, 1, work); }

double CostModel::PredictShareUs(const Work& work, int64_t batch_tokens) const {
  const double part =
      std::min(1.0, static_cast<double>(work.tokens) / static_cast<double>(batch_tokens));
  return std::max(Predict(coefficients_, part, work), Predict(kept_coefficients_, part, work));
}

}  // namespace quiver
