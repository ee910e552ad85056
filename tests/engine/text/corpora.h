// The texts on which token ids are compared; corpora.py makes the same ones.
#ifndef QUIVER_TESTS_ENGINE_TEXT_CORPORA_H_
#define QUIVER_TESTS_ENGINE_TEXT_CORPORA_H_

#include <string>
#include <vector>

namespace quiver {

// The i-th random string of Unicode, valid UTF-8.
std::string RandomText(int i);

// "random", or from the folder `data` "udhr", "blns", "normalization".
std::vector<std::string> ReadCorpus(const std::string& name, const std::string& data);

}  // namespace quiver

#endif  // QUIVER_TESTS_ENGINE_TEXT_CORPORA_H_
