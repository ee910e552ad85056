// The picture of a sweep.
#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"
#include "tools/quiver/serve_report.h"

namespace quiver {
namespace {

// Pixels: the picture, and the space around its axes.
constexpr double kWidth = 720;
constexpr double kHeight = 420;
constexpr double kLeft = 70;
constexpr double kRight = 90;
constexpr double kTop = 40;
constexpr double kBottom = 50;
// Between two names.
constexpr double kLineHeight = 14;

struct Curve {
  const char* name;
  double part;
  const char* color;
};
constexpr Curve kCurves[] = {
    {"P50", 0.50, "#1b7f4d"}, {"P95", 0.95, "#c77700"}, {"P99", 0.99, "#b3261e"}};

std::string Escaped(const std::string& text) {
  return absl::StrReplaceAll(text, {{"&", "&amp;"}, {"<", "&lt;"}, {">", "&gt;"}});
}

// From a run's rate and latency to pixels.
class Axes {
 public:
  explicit Axes(const ServeReport& report) {
    double least_ms = 1e9;
    double most_ms = 0;
    for (const auto& run : report.runs) {
      most_rate_ = std::max(most_rate_, run[0].workload.rate);
      for (const Curve& curve : kCurves) {
        const double ms = Quantile(run[0].latency_ms, curve.part);
        if (ms > 0) least_ms = std::min(least_ms, ms);
        most_ms = std::max(most_ms, ms);
      }
    }
    if (most_ms <= 0) least_ms = most_ms = 1;
    least_ = static_cast<int>(std::floor(std::log10(least_ms)));
    most_ = std::max(least_ + 1, static_cast<int>(std::ceil(std::log10(most_ms))));
    if (most_rate_ <= 0) most_rate_ = 1;
  }

  double X(double rate) const { return kLeft + (kWidth - kLeft - kRight) * rate / most_rate_; }
  double Y(double ms) const {
    const double part = (std::log10(ms) - least_) / (most_ - least_);
    return kHeight - kBottom - (kHeight - kTop - kBottom) * part;
  }

  // Lines and numbers of both axes.
  std::string Draw() const {
    std::string svg;
    for (int exponent = least_; exponent <= most_; ++exponent) {
      const double ms = std::pow(10, exponent);
      absl::StrAppendFormat(&svg,
                            "<path d=\"M%.1f %.1fH%.1f\" stroke=\"#ddd\"/>"
                            "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"end\">%g</text>\n",
                            kLeft, Y(ms), kWidth - kRight, kLeft - 8, Y(ms) + 4, ms);
    }
    constexpr int kTicks = 5;
    for (int i = 0; i <= kTicks; ++i) {
      const double rate = most_rate_ * i / kTicks;
      absl::StrAppendFormat(&svg,
                            "<path d=\"M%.1f %.1fv5\" stroke=\"#555\"/>"
                            "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\">%.4g</text>\n",
                            X(rate), kHeight - kBottom, X(rate), kHeight - kBottom + 20, rate);
    }
    return svg;
  }

 private:
  double most_rate_ = 0;
  // Exponents of ten, in ms.
  int least_ = 0;
  int most_ = 1;
};

}  // namespace

std::string LatencyChart(const ServeReport& report) {
  const Axes axes(report);
  std::string svg = absl::StrFormat(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%g\" height=\"%g\" viewBox=\"0 0 %g %g\" "
      "font-family=\"sans-serif\" font-size=\"12\">\n"
      "<rect width=\"100%%\" height=\"100%%\" fill=\"#fff\"/>\n",
      kWidth, kHeight, kWidth, kHeight);
  absl::StrAppendFormat(
      &svg,
      "<text x=\"%g\" y=\"22\" font-size=\"14\">%s: latency of %s in ms, from when a request was "
      "due</text>\n"
      "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\">requests/s</text>\n",
      kLeft, Escaped(report.model.model()), Escaped(report.runs[0][0].workload.name),
      (kLeft + kWidth - kRight) / 2, kHeight - 10);
  svg += axes.Draw();
  // A name stands at the end of its curve, but not in the one below.
  double lowest_name = kHeight;
  for (const Curve& curve : kCurves) {
    std::string path;
    std::string dots;
    double x = 0;
    double y = 0;
    for (const auto& run : report.runs) {
      const double ms = Quantile(run[0].latency_ms, curve.part);
      if (ms <= 0) continue;
      x = axes.X(run[0].workload.rate);
      y = axes.Y(ms);
      absl::StrAppendFormat(&path, "%c%.1f %.1f", path.empty() ? 'M' : 'L', x, y);
      absl::StrAppendFormat(&dots, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"3\" fill=\"%s\"/>", x, y,
                            curve.color);
    }
    if (path.empty()) continue;
    lowest_name = std::min(y + 4, lowest_name - kLineHeight);
    absl::StrAppendFormat(&svg,
                          "<path d=\"%s\" fill=\"none\" stroke=\"%s\" stroke-width=\"2\"/>%s"
                          "<text x=\"%.1f\" y=\"%.1f\" fill=\"%s\">%s</text>\n",
                          path, curve.color, dots, x + 8, lowest_name, curve.color, curve.name);
  }
  absl::StrAppend(&svg, "</svg>\n");
  return svg;
}

}  // namespace quiver
