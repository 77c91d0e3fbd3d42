// Preloaded into a program, makes its MPI calls fail: the calls of MOEFY_TEST_FAIL_CALL (the third
// of one function and the first of another: MPI_Isend:3,MPI_Test:1) on the rank
// MOEFY_TEST_FAIL_RANK return MPI_ERR_OTHER without doing anything. With
// MOEFY_TEST_COUNT_CALLS=FILE, FILE.RANK lists instead how often each was called.

#include <mpi.h>

#include <cstdio>
#include <cstdlib>
#include <map>
#include <set>
#include <sstream>
#include <string>

namespace {

std::string variable(const char* name) {
  const char* text = std::getenv(name);
  return text ? text : "";
}

class Saboteur {
 public:
  Saboteur() {
    const std::string rank = variable("OMPI_COMM_WORLD_RANK");
    std::istringstream calls(variable("MOEFY_TEST_FAIL_CALL"));
    if (rank == variable("MOEFY_TEST_FAIL_RANK")) {
      for (std::string call; std::getline(calls, call, ',');) failing_.insert(call);
    }
    const std::string file = variable("MOEFY_TEST_COUNT_CALLS");
    if (!file.empty()) count_file_ = file + "." + rank;
  }
  ~Saboteur() {
    if (count_file_.empty()) return;
    if (FILE* file = std::fopen(count_file_.c_str(), "w")) {
      for (const auto& [name, count] : counts_) std::fprintf(file, "%s %ld\n", name.c_str(), count);
      std::fclose(file);
    }
  }
  Saboteur(const Saboteur&) = delete;
  Saboteur& operator=(const Saboteur&) = delete;

  bool fails(const char* function) {
    const long count = ++counts_[function];
    return failing_.contains(std::string(function) + ":" + std::to_string(count));
  }

 private:
  std::set<std::string> failing_;
  std::string count_file_;
  std::map<std::string, long> counts_;
};

Saboteur& saboteur() {
  static Saboteur one;
  return one;
}

}  // namespace

#define MOEFY_WRAP(name, parameters, arguments)               \
  extern "C" int MPI_##name parameters {                      \
    if (saboteur().fails("MPI_" #name)) return MPI_ERR_OTHER; \
    return PMPI_##name arguments;                             \
  }

MOEFY_WRAP(Init_thread, (int* argc, char*** argv, int required, int* provided),
           (argc, argv, required, provided))
MOEFY_WRAP(Finalize, (), ())
MOEFY_WRAP(Comm_set_errhandler, (MPI_Comm comm, MPI_Errhandler handler), (comm, handler))
MOEFY_WRAP(Comm_dup, (MPI_Comm comm, MPI_Comm* copy), (comm, copy))
MOEFY_WRAP(Comm_free, (MPI_Comm * comm), (comm))
MOEFY_WRAP(Comm_rank, (MPI_Comm comm, int* rank), (comm, rank))
MOEFY_WRAP(Comm_size, (MPI_Comm comm, int* size), (comm, size))
MOEFY_WRAP(Isend,
           (const void* data, int count, MPI_Datatype type, int target, int tag, MPI_Comm comm,
            MPI_Request* request),
           (data, count, type, target, tag, comm, request))
MOEFY_WRAP(Irecv,
           (void* data, int count, MPI_Datatype type, int source, int tag, MPI_Comm comm,
            MPI_Request* request),
           (data, count, type, source, tag, comm, request))
MOEFY_WRAP(Improbe,
           (int source, int tag, MPI_Comm comm, int* found, MPI_Message* message,
            MPI_Status* status),
           (source, tag, comm, found, message, status))
MOEFY_WRAP(Imrecv,
           (void* data, int count, MPI_Datatype type, MPI_Message* message, MPI_Request* request),
           (data, count, type, message, request))
MOEFY_WRAP(Get_count, (const MPI_Status* status, MPI_Datatype type, int* count),
           (status, type, count))
MOEFY_WRAP(Test, (MPI_Request * request, int* done, MPI_Status* status), (request, done, status))
MOEFY_WRAP(Ibarrier, (MPI_Comm comm, MPI_Request* request), (comm, request))
MOEFY_WRAP(Ibcast,
           (void* data, int count, MPI_Datatype type, int root, MPI_Comm comm,
            MPI_Request* request),
           (data, count, type, root, comm, request))
MOEFY_WRAP(Igather,
           (const void* data, int count, MPI_Datatype type, void* all, int all_count,
            MPI_Datatype all_type, int root, MPI_Comm comm, MPI_Request* request),
           (data, count, type, all, all_count, all_type, root, comm, request))
MOEFY_WRAP(Initialized, (int* flag), (flag))
MOEFY_WRAP(Finalized, (int* flag), (flag))
MOEFY_WRAP(Get_library_version, (char* version, int* length), (version, length))
MOEFY_WRAP(Error_string, (int code, char* text, int* length), (code, text, length))
