#include "tools/quiver/command_line.h"

int main(int argc, char** argv) { return quiver::RunCommandLine(argc, argv); }
