#include "moefy/cli/run.hpp"

int main(int argc, char** argv) { return moefy::run_program(argc, argv); }
