/* SPDX-License-Identifier: Apache-2.0
 *
 * The nbdkit plugin, compiled: what plugin.py says, for guests that write much. Both write the log that spool.py
 * describes, share the numbers of state.py, and pass the same tests (tests/integration/tap); a rule that changes here
 * changes there.
 *
 * Locks: ``log_lock`` orders the records; ``news_lock`` guards the mode (whether writes wait). Neither is taken while
 * the other is held. API: nbdkit-plugin(3).
 */
#define _GNU_SOURCE
#define NBDKIT_API_VERSION 2
#include <nbdkit-plugin.h>

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <isa-l/crc.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>
#include <zlib.h>

#define THREAD_MODEL NBDKIT_THREAD_MODEL_PARALLEL
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the log is little-endian");

enum { TICK_MS = 50, LARGEST = 1 << 20, FILE_BYTES = 8 << 20, DISKS = 1024, SAMPLES = 4096 };
/* Nanoseconds after which a write that is not in the log means that the tap is unhealthy. */
static const uint64_t STUCK_NS = 1000000000;

/* spool.py */
enum { DATA = 1, ZERO = 2, READY_MARK = 3, END_MARK = 4 };
struct __attribute__((packed)) head {
  char magic[4];
  uint32_t crc;
  uint64_t seq, offset;
  uint32_t length;
  uint16_t disk;
  uint8_t kind, nothing;
};
_Static_assert(sizeof(struct head) == 32, "as in spool.py");

/* state.py */
enum { BEAT, APPENDED, BYTES, READY, END, DEAD, SYNCHRONOUS, FALLS, ACKED, TRIMMED, MIRROR, MARKS, LISTENING, NUMBERS = 16 };
enum { ALIVE, FULL, FAILED, ENDED };
enum { MARK_READY = 1, MARK_END = 2 };
static _Atomic uint64_t *board;

static struct { char *name; uint64_t size; } disks[DISKS];
static int disk_count;
static char *board_path, *spool_path, *inbox_path, *outbox_path;
static uint64_t limit, timeout_ns;

static int spool_folder, inbox, outbox;
static struct sockaddr_un outbox_address;

static pthread_mutex_t log_lock = PTHREAD_MUTEX_INITIALIZER;
static uint64_t seq, appended, in_file = FILE_BYTES;
static int file = -1;
/* When the present holder of log_lock took it, or 0. */
static _Atomic uint64_t busy_since;

static pthread_mutex_t news_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t news;
static atomic_bool waits;
/* Newest samples of (time, last record), a ring: what was written a while ago. */
static struct { uint64_t at, seq; } samples[SAMPLES];
static unsigned sample_first, sample_count;

static uint64_t now_ns(void)
{
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

/* ---- The log ---- */

static int rotate(void)
{
  char name[32];
  snprintf(name, sizeof name, "%016" PRIu64 ".log", seq + 1);
  int fresh = openat(spool_folder, name, O_WRONLY | O_CREAT | O_EXCL | O_APPEND | O_CLOEXEC, 0600);
  if (fresh < 0)
    return -1;
  if (file >= 0)
    close(file);
  file = fresh;
  in_file = 0;
  return 0;
}

/* Append a record, whole or not at all. Returns its number, or 0 with errno: then the tap is dead. */
static uint64_t append(uint8_t kind, int disk, uint64_t offset, uint32_t length, const void *data, uint32_t size, uint32_t crc)
{
  if (board[DEAD]) {
    errno = ENOSPC;
    return 0;
  }
  struct head head = {.magic = "TAPR", .seq = seq + 1, .offset = offset, .length = length, .disk = (uint16_t)disk, .kind = kind};
  uint64_t whole = sizeof head + size;
  int error = ENOSPC;
  if (appended - board[TRIMMED] + whole > limit)
    goto dead;
  if (in_file >= FILE_BYTES && rotate() < 0) {
    error = errno;
    goto dead;
  }
  head.crc = crc32_gzip_refl(0, (const unsigned char *)&head.seq, sizeof head - 8);
  if (size)
    head.crc = (uint32_t)crc32_combine(head.crc, crc, size);
  struct iovec parts[] = {{&head, sizeof head}, {(void *)data, size}};
  ssize_t written = writev(file, parts, size ? 2 : 1);
  if (written != (ssize_t)whole) {
    error = written < 0 ? errno : ENOSPC;
    if (ftruncate(file, (off_t)in_file) < 0)
      nbdkit_debug("what is torn stays: a reader stops before it");
    goto dead;
  }
  seq++;
  in_file += whole;
  appended += whole;
  board[BYTES] = appended;
  board[APPENDED] = seq;
  return seq;
dead:
  board[DEAD] = error == ENOSPC || error == EDQUOT ? FULL : FAILED;
  nbdkit_error("the tap takes no more: %s", strerror(error));
  errno = error;
  return 0;
}

/* Wake the daemon if it listens; it also polls by itself. */
static void call(void)
{
  if (atomic_exchange(&board[LISTENING], 0))
    sendto(outbox, "w", 1, MSG_DONTWAIT, (struct sockaddr *)&outbox_address, sizeof outbox_address);
}

/* ---- Whether writes wait ---- */

/* Stop waiting: the other site is too slow. news_lock must be held. */
static void fall(void)
{
  if (!waits)
    return;
  waits = false;
  sample_count = 0;
  board[SYNCHRONOUS] = 0;
  board[FALLS]++;
  pthread_cond_broadcast(&news);
}

static void wait_for(uint64_t record)
{
  uint64_t until = now_ns() + timeout_ns;
  struct timespec deadline = {(time_t)(until / 1000000000), (long)(until % 1000000000)};
  pthread_mutex_lock(&news_lock);
  while (waits && !board[DEAD] && board[ACKED] < record) {
    if (now_ns() >= until) {
      fall();
      break;
    }
    pthread_cond_timedwait(&news, &news_lock, &deadline);
  }
  pthread_mutex_unlock(&news_lock);
}

/* Decide whether writes wait: as the daemon requests, once the other site keeps up. news_lock must be held. */
static void mode(uint64_t now)
{
  if (!board[MIRROR]) {
    waits = false;
    sample_count = 0;
    board[SYNCHRONOUS] = 0;
    return;
  }
  if (waits)
    return;
  uint64_t record = board[APPENDED], acked = board[ACKED], horizon = now - timeout_ns / 2;
  uint64_t apart = timeout_ns / (SAMPLES / 2);
  unsigned last = (sample_first + sample_count - 1) % SAMPLES;
  if (!sample_count || now - samples[last].at >= apart) {
    if (sample_count == SAMPLES)
      sample_first = (sample_first + 1) % SAMPLES;
    else
      sample_count++;
    last = (sample_first + sample_count - 1) % SAMPLES;
    samples[last].at = now;
    samples[last].seq = record;
  }
  bool caught_up = record <= acked;
  /* What was written a while ago is already there. */
  for (unsigned n = sample_count; !caught_up && n-- > 0;) {
    unsigned at = (sample_first + n) % SAMPLES;
    if (samples[at].at > horizon)
      continue;
    caught_up = acked >= samples[at].seq;
    break;
  }
  if (caught_up) {
    waits = true;
    board[SYNCHRONOUS] = 1;
  }
}

/* Write the marks that the daemon requests. */
static void mark(void)
{
  uint64_t marks = board[MARKS];
  bool ready = (marks & MARK_READY) && !board[READY], end = (marks & MARK_END) && !board[END];
  if (!ready && !end)
    return;
  pthread_mutex_lock(&log_lock);
  if (ready)
    board[READY] = append(READY_MARK, 0, 0, 0, NULL, 0, 0);
  if (end && (board[END] = append(END_MARK, 0, 0, 0, NULL, 0, 0)))
    board[DEAD] = ENDED;
  pthread_mutex_unlock(&log_lock);
  call();
}

static void *tick(void *unused)
{
  (void)unused;
  for (;;) {
    char word[16];
    (void)!recv(inbox, word, sizeof word, 0); /* or after TICK_MS */
    uint64_t now = now_ns();
    pthread_mutex_lock(&news_lock);
    mode(now);
    pthread_cond_broadcast(&news);
    pthread_mutex_unlock(&news_lock);
    mark();
    uint64_t since = busy_since;
    if (!since || now < since + STUCK_NS)
      board[BEAT] = now_ns();
  }
  return NULL;
}

/* ---- What nbdkit calls ---- */

/* Log one write of the guest. */
static int take(uint8_t kind, void *handle, uint64_t offset, uint32_t length, const void *data, uint32_t size)
{
  uint32_t crc = size ? crc32_gzip_refl(0, data, size) : 0;
  pthread_mutex_lock(&log_lock);
  busy_since = now_ns();
  uint64_t record = append(kind, (int)(intptr_t)handle - 1, offset, length, data, size, crc);
  int error = errno;
  busy_since = 0;
  pthread_mutex_unlock(&log_lock);
  if (!record) {
    nbdkit_set_error(error);
    return -1;
  }
  call();
  if (waits && board[READY])
    wait_for(record);
  return 0;
}

static int tap_pwrite(void *handle, const void *data, uint32_t count, uint64_t offset, uint32_t flags)
{
  (void)flags;
  if (count > LARGEST) {
    nbdkit_error("a write of %" PRIu32 " bytes is longer than any that was offered", count);
    nbdkit_set_error(EINVAL);
    return -1;
  }
  return take(DATA, handle, offset, count, data, count);
}

static int tap_zero(void *handle, uint32_t count, uint64_t offset, uint32_t flags)
{
  (void)flags;
  return take(ZERO, handle, offset, count, NULL, 0);
}

/* Nobody reads the target of a mirror. */
static int tap_pread(void *handle, void *data, uint32_t count, uint64_t offset, uint32_t flags)
{
  (void)handle, (void)offset, (void)flags;
  memset(data, 0, count);
  return 0;
}

/* Nothing: a completed write is as safe as it can be. */
static int tap_flush(void *handle, uint32_t flags)
{
  (void)handle, (void)flags;
  return 0;
}

static int tap_config(const char *key, const char *value)
{
  struct { const char *key; char **to; } paths[] = {
    {"board", &board_path}, {"spool", &spool_path}, {"inbox", &inbox_path}, {"outbox", &outbox_path}};
  for (size_t n = 0; n < sizeof paths / sizeof *paths; n++)
    if (!strcmp(key, paths[n].key))
      return (*paths[n].to = strdup(value)) ? 0 : -1;
  if (!strcmp(key, "limit")) {
    limit = strtoull(value, NULL, 10);
    return 0;
  }
  if (!strcmp(key, "timeout")) {
    timeout_ns = (uint64_t)(strtod(value, NULL) * 1e9);
    return 0;
  }
  if (strcmp(key, "disks")) {
    nbdkit_error("there is no setting %s", key);
    return -1;
  }
  char *rest = strdup(value), *name;
  while (rest && (name = strsep(&rest, ","))) {
    char *size = strrchr(name, ':');
    if (!size || disk_count == DISKS) {
      nbdkit_error("disks=NAME:SIZE,... with at most %d", DISKS);
      return -1;
    }
    *size++ = 0;
    disks[disk_count].name = name;
    disks[disk_count++].size = strtoull(size, NULL, 10);
  }
  return 0;
}

static int tap_config_complete(void)
{
  if (disk_count && board_path && spool_path && inbox_path && outbox_path && limit)
    return 0;
  nbdkit_error("disks, board, spool, limit, timeout, inbox and outbox must be set");
  return -1;
}

static int address(struct sockaddr_un *to, const char *path)
{
  to->sun_family = AF_UNIX;
  if (strlen(path) >= sizeof to->sun_path) {
    nbdkit_error("the path of a socket is too long: %s", path);
    return -1;
  }
  strcpy(to->sun_path, path);
  return 0;
}

static int tap_after_fork(void)
{
  struct sockaddr_un here = {0};
  struct timeval limit_of_a_tick = {0, TICK_MS * 1000};
  pthread_condattr_t monotonic;
  pthread_t thread;
  int shared = open(board_path, O_RDWR | O_CLOEXEC);
  void *mapped = shared < 0 ? MAP_FAILED : mmap(NULL, NUMBERS * 8, PROT_READ | PROT_WRITE, MAP_SHARED, shared, 0);
  board = mapped;
  spool_folder = open(spool_path, O_DIRECTORY | O_RDONLY | O_CLOEXEC);
  inbox = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  outbox = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (mapped == MAP_FAILED || spool_folder < 0 || inbox < 0 || outbox < 0) {
    nbdkit_error("the tap's files cannot be opened: %m");
    return -1;
  }
  close(shared);
  if (address(&here, inbox_path) < 0 || address(&outbox_address, outbox_path) < 0)
    return -1;
  if (bind(inbox, (struct sockaddr *)&here, sizeof here) < 0 ||
      setsockopt(inbox, SOL_SOCKET, SO_RCVTIMEO, &limit_of_a_tick, sizeof limit_of_a_tick) < 0) {
    nbdkit_error("%s: %m", inbox_path);
    return -1;
  }
  pthread_condattr_init(&monotonic);
  pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
  pthread_cond_init(&news, &monotonic);
  if ((errno = pthread_create(&thread, NULL, tick, NULL))) {
    nbdkit_error("no thread: %m");
    return -1;
  }
  return 0;
}

static int tap_list_exports(int readonly, int is_tls, struct nbdkit_exports *exports)
{
  (void)readonly, (void)is_tls;
  for (int n = 0; n < disk_count; n++)
    if (nbdkit_add_export(exports, disks[n].name, NULL) < 0)
      return -1;
  return 0;
}

/* The handle of a connection is the disk's number, from 1. */
static void *tap_open(int readonly)
{
  (void)readonly;
  const char *wanted = nbdkit_export_name();
  for (int n = 0; wanted && n < disk_count; n++)
    if (!strcmp(wanted, disks[n].name))
      return (void *)(intptr_t)(n + 1);
  nbdkit_error("there is no disk %s", wanted ? wanted : "");
  return NULL;
}

static int64_t tap_get_size(void *handle) { return (int64_t)disks[(intptr_t)handle - 1].size; }
static int yes(void *handle) { (void)handle; return 1; }
static int no(void *handle) { (void)handle; return 0; }
static int native(void *handle) { (void)handle; return NBDKIT_FUA_NATIVE; }

static int tap_block_size(void *handle, uint32_t *least, uint32_t *preferred, uint32_t *most)
{
  (void)handle;
  *least = 1, *preferred = 4096, *most = LARGEST;
  return 0;
}

static struct nbdkit_plugin plugin = {
  .name = "seedshiptap",
  .longname = "seedship's tap",
  .config = tap_config,
  .config_complete = tap_config_complete,
  .after_fork = tap_after_fork,
  .list_exports = tap_list_exports,
  .open = tap_open,
  .get_size = tap_get_size,
  .block_size = tap_block_size,
  .can_write = yes,
  .can_flush = yes,
  .can_trim = no,
  .can_zero = yes, /* Otherwise zeros would arrive as data. */
  .can_fast_zero = yes,
  .can_fua = native,
  .can_multi_conn = no,
  .pread = tap_pread,
  .pwrite = tap_pwrite,
  .zero = tap_zero,
  .flush = tap_flush,
};

NBDKIT_REGISTER_PLUGIN(plugin)
