#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "moefy/comm/communicator.hpp"

namespace moefy {
namespace {

using Environment = std::map<std::string, std::string>;
using Kind = LaunchInfo::Kind;

struct Case {
  const char* name;
  Environment environment;
  LaunchInfo expected;
};

class LaunchTest : public testing::TestWithParam<Case> {};

TEST_P(LaunchTest, reads_the_environment) {
  const LaunchInfo info = detect_launch(GetParam().environment);

  const LaunchInfo& expected = GetParam().expected;
  EXPECT_EQ(info.kind, expected.kind);
  EXPECT_EQ(info.rank, expected.rank);
  EXPECT_EQ(info.size, expected.size);
  EXPECT_EQ(info.local_rank, expected.local_rank);
  EXPECT_EQ(info.local_size, expected.local_size);
}

const Environment kOpenMpi{{"OMPI_COMM_WORLD_RANK", "2"},
                           {"OMPI_COMM_WORLD_SIZE", "4"},
                           {"OMPI_COMM_WORLD_LOCAL_RANK", "0"},
                           {"OMPI_COMM_WORLD_LOCAL_SIZE", "2"},
                           {"PMIX_RANK", "2"}};
const Environment kTorchrun{{"RANK", "3"},        {"WORLD_SIZE", "4"},
                            {"LOCAL_RANK", "1"},  {"LOCAL_WORLD_SIZE", "2"},
                            {"MASTER_ADDR", "a"}, {"MASTER_PORT", "29500"}};
const Environment kBatchShell{
    {"SLURM_JOB_ID", "17"}, {"SLURM_PROCID", "0"}, {"SLURM_LOCALID", "0"}, {"SLURM_NTASKS", "8"}};

Environment with(Environment environment, const Environment& more) {
  for (const auto& [name, value] : more) environment[name] = value;
  return environment;
}

INSTANTIATE_TEST_SUITE_P(
    Launchers, LaunchTest,
    testing::Values(
        Case{"nothing", {}, {Kind::alone, 0, 1, 0, 1}},
        Case{"mpirun", kOpenMpi, {Kind::mpi, 2, 4, 0, 2}},
        Case{"mpirun_one",
             {{"OMPI_COMM_WORLD_RANK", "0"}, {"OMPI_COMM_WORLD_SIZE", "1"}},
             {Kind::mpi, 0, 1, 0, 1}},
        Case{"mpirun_in_a_batch_shell", with(kBatchShell, kOpenMpi), {Kind::mpi, 2, 4, 0, 2}},
        Case{"mpirun_below_a_step_of_daemons",
             with(kOpenMpi, {{"SLURM_PROCID", "1"}, {"SLURM_STEP_NUM_TASKS", "2"}}),
             {Kind::mpi, 2, 4, 0, 2}},
        Case{"mpirun_with_equal_torch_variables",
             with(kOpenMpi, {{"RANK", "2"}, {"WORLD_SIZE", "4"}}),
             {Kind::mpi, 2, 4, 0, 2}},
        Case{"hydra",
             {{"PMI_RANK", "1"},
              {"PMI_SIZE", "3"},
              {"MPI_LOCALRANKID", "1"},
              {"MPI_LOCALNRANKS", "3"}},
             {Kind::mpi, 1, 3, 1, 3}},
        Case{"srun_with_pmix",
             {{"PMIX_RANK", "5"},
              {"SLURM_PROCID", "5"},
              {"SLURM_LOCALID", "1"},
              {"SLURM_STEP_NUM_TASKS", "6"}},
             {Kind::mpi, 5, 6, 1, 2}},
        Case{"srun_without_pmi",
             {{"SLURM_PROCID", "5"}, {"SLURM_LOCALID", "1"}, {"SLURM_STEP_NUM_TASKS", "6"}},
             {Kind::mpi, 5, 6, 1, 2}},
        Case{"srun_of_one_task",
             {{"SLURM_PROCID", "0"}, {"SLURM_LOCALID", "0"}, {"SLURM_STEP_NUM_TASKS", "1"}},
             {Kind::alone, 0, 1, 0, 1}},
        Case{"batch_shell", kBatchShell, {Kind::alone, 0, 1, 0, 1}},
        Case{"torchrun", kTorchrun, {Kind::torchrun, 3, 4, 1, 2}},
        Case{"torchrun_in_a_batch_shell",
             with(kBatchShell, kTorchrun),
             {Kind::torchrun, 3, 4, 1, 2}},
        Case{"torchrun_of_one", {{"RANK", "0"}, {"WORLD_SIZE", "1"}}, {Kind::alone, 0, 1, 0, 1}},
        Case{"somebody_elses_rank", {{"RANK", "general"}}, {Kind::alone, 0, 1, 0, 1}}),
    [](const auto& of) { return std::string(of.param.name); });

class BadLaunchTest : public testing::TestWithParam<Case> {};

TEST_P(BadLaunchTest, is_refused_with_what_was_found) {
  std::string message;

  try {
    detect_launch(GetParam().environment);
  } catch (const UsageError& error) {
    message = error.what();
  }

  for (const auto& [name, value] : GetParam().environment) {
    EXPECT_THAT(message, testing::HasSubstr(name + "=" + value));
  }
}

INSTANTIATE_TEST_SUITE_P(
    Contradictions, BadLaunchTest,
    testing::Values(
        Case{"sizes_differ",
             {{"OMPI_COMM_WORLD_RANK", "0"},
              {"OMPI_COMM_WORLD_SIZE", "2"},
              {"RANK", "0"},
              {"WORLD_SIZE", "4"}},
             {}},
        Case{"ranks_differ",
             {{"OMPI_COMM_WORLD_RANK", "0"},
              {"OMPI_COMM_WORLD_SIZE", "2"},
              {"RANK", "1"},
              {"WORLD_SIZE", "2"}},
             {}},
        Case{"pmi_differs",
             {{"OMPI_COMM_WORLD_RANK", "0"},
              {"OMPI_COMM_WORLD_SIZE", "2"},
              {"PMI_RANK", "1"},
              {"PMI_SIZE", "2"}},
             {}},
        Case{"rank_outside", {{"OMPI_COMM_WORLD_RANK", "2"}, {"OMPI_COMM_WORLD_SIZE", "2"}}, {}},
        Case{"no_number", {{"OMPI_COMM_WORLD_RANK", "0"}, {"OMPI_COMM_WORLD_SIZE", "two"}}, {}},
        Case{"negative", {{"RANK", "-1"}, {"WORLD_SIZE", "2"}}, {}}),
    [](const auto& of) { return std::string(of.param.name); });

}  // namespace
}  // namespace moefy
