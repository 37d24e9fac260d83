/*
 * Between fork() and exec(). The first step that fails ends it, told by the status
 * pipe with the step's name. What needs privileges comes before they are given up.
 */
#define _GNU_SOURCE
#include "launch.h"

#include "accounts.h"
#include "frames.h"
#include "privileges.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#define CGROUP_ROOT "/sys/fs/cgroup/roost"
#define LAST_SIGNAL 64
#define RLIMIT_FIELD_BYTES 20

static const char default_path[] = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

const uint16_t exec_tags[] = {TAG_PROCESS,
                              TAG_ARGUMENT,
                              TAG_ENVIRONMENT,
                              TAG_DIRECTORY,
                              TAG_USER,
                              TAG_GROUP,
                              TAG_TERMINAL,
                              TAG_STDIN,
                              TAG_STDOUT,
                              TAG_STDERR,
                              TAG_WINDOW,
                              TAG_CAPABILITIES,
                              TAG_AMBIENT,
                              TAG_NO_NEW_PRIVILEGES,
                              TAG_RLIMIT,
                              TAG_CGROUP,
                              TAG_UMASK,
                              TAG_OOM_SCORE_ADJ,
                              0};

/* Where to tell what failed. */
static int status_fd;

void fail_launch(const char *format, ...)
{
    int error = errno;
    uint8_t bytes[1024];
    char what[512];
    struct field_writer writer = {.bytes = bytes, .capacity = sizeof bytes};
    va_list arguments;

    va_start(arguments, format);
    (void)vsnprintf(what, sizeof what, format, arguments);
    va_end(arguments);
    put_u32_field(&writer, TAG_ERRNO, (uint32_t)error);
    put_text_field(&writer, TAG_MESSAGE, what);
    (void)!write(status_fd, bytes, writer.length);
    _exit(127);
}

void cgroup_path(char *path, size_t size, uint32_t process)
{
    (void)snprintf(path, size, CGROUP_ROOT "/%u", process);
}

/* KEY=VALUE where the key names a file of a control group and nothing else. */
static bool is_cgroup_setting(const struct field *field)
{
    char *text = field_text(field);
    size_t key = text != NULL ? strspn(text, "abcdefghijklmnopqrstuvwxyz0123456789._") : 0;
    bool good = key > 0 && text[0] != '.' && text[key] == '=';

    free(text);
    return good;
}

const char *check_launch(const struct fields *request)
{
    struct field field;
    size_t at = 0;
    uint32_t number;
    uint64_t set;

    if (!only_fields(request, exec_tags))
        return "a field that this agent does not know";
    if (!has_field(request, TAG_ARGUMENT))
        return "no program";
    while (next_field(request, &at, &field)) {
        switch (field.tag) {
        case TAG_RLIMIT:
            if (field.length != RLIMIT_FIELD_BYTES || get_u32(field.value) >= RLIM_NLIMITS)
                return "a limit that is none";
            break;
        case TAG_GROUP:
            if (field.length != 4 || get_u32(field.value) == UINT32_MAX)
                return "a group that is no number";
            break;
        case TAG_CGROUP:
            if (!is_cgroup_setting(&field))
                return "what is no limit of a control group";
            break;
        case TAG_UMASK:
        case TAG_OOM_SCORE_ADJ:
            if (!read_u32(request, field.tag, &number))
                return "a number of the wrong size";
            break;
        case TAG_CAPABILITIES:
        case TAG_AMBIENT:
            if (!read_u64(request, field.tag, &set))
                return "a set of capabilities of the wrong size";
            break;
        case TAG_TERMINAL:
            if (field.length != 4)
                return "a terminal without a size";
            break;
        default:
            break;
        }
    }
    return NULL;
}

static void write_file(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);

    if (fd < 0)
        fail_launch("open %s", path);
    if (write(fd, text, strlen(text)) != (ssize_t)strlen(text))
        fail_launch("write '%.64s' to %s", text, path);
    close(fd);
}

/* Only when limits are wanted: a group for each program costs some milliseconds. */
static void enter_cgroup(const struct fields *request)
{
    size_t count;
    char **settings = read_texts(request, TAG_CGROUP, &count);
    char directory[64], path[512];
    uint32_t process = 0;

    errno = EINVAL;
    if (settings == NULL)
        fail_launch("read the limits");
    if (count == 0)
        return;
    (void)read_u32(request, TAG_PROCESS, &process);
    cgroup_path(directory, sizeof directory, process);
    if (mkdir(CGROUP_ROOT, 0755) < 0 && errno != EEXIST)
        fail_launch("mkdir %s", CGROUP_ROOT);
    /* One by one: a kernel without one of them still has the others. */
    static const char *const controllers[] = {"+cpu", "+memory", "+pids", "+io", "+cpuset"};
    static const char *const levels[] = {"/sys/fs/cgroup/cgroup.subtree_control",
                                         CGROUP_ROOT "/cgroup.subtree_control"};
    for (size_t level = 0; level < 2; level++)
        for (size_t i = 0; i < sizeof controllers / sizeof *controllers; i++) {
            int fd = open(levels[level], O_WRONLY | O_CLOEXEC);

            if (fd < 0)
                fail_launch("open %s", levels[level]);
            (void)!write(fd, controllers[i], strlen(controllers[i]));
            close(fd);
        }
    if (mkdir(directory, 0755) < 0 && errno != EEXIST)
        fail_launch("mkdir %s", directory);
    for (char **setting = settings; *setting != NULL; setting++) {
        char *value = strchr(*setting, '=');

        *value = '\0';
        errno = ENAMETOOLONG;
        if (snprintf(path, sizeof path, "%s/%s", directory, *setting) >= (int)sizeof path)
            fail_launch("'%.64s' is no limit of a control group", *setting);
        write_file(path, value + 1);
    }
    (void)snprintf(path, sizeof path, "%s/cgroup.procs", directory);
    write_file(path, "0");
}

static void set_rlimits(const struct fields *request)
{
    struct field field;
    size_t at = 0;

    while (next_field(request, &at, &field)) {
        if (field.tag != TAG_RLIMIT)
            continue;
        struct rlimit limit = {.rlim_cur = get_u64(field.value + 4), .rlim_max = get_u64(field.value + 12)};
        if (setrlimit((int)get_u32(field.value), &limit) < 0)
            fail_launch("setrlimit %u", get_u32(field.value));
    }
}

/* The agent blocks signals for its own sake, and what is blocked stays so across exec. */
static void reset_signals(void)
{
    struct sigaction action = {.sa_handler = SIG_DFL};
    sigset_t none;

    for (int signal = 1; signal <= LAST_SIGNAL; signal++)
        (void)sigaction(signal, &action, NULL);
    sigemptyset(&none);
    if (sigprocmask(SIG_SETMASK, &none, NULL) < 0)
        fail_launch("sigprocmask");
}

static void read_account(const struct fields *request, struct account *account)
{
    char *wanted = read_text_field(request, TAG_USER);
    char wrong[512];
    struct field field;
    size_t at = 0;

    if (!find_account(wanted != NULL && *wanted != '\0' ? wanted : "0", "/etc/passwd", "/etc/group", account,
                      wrong, sizeof wrong)) {
        errno = ENOENT;
        fail_launch("%s", wrong);
    }
    while (next_field(request, &at, &field)) {
        if (field.tag != TAG_GROUP)
            continue;
        errno = E2BIG;
        if (account->group_count == MAX_ACCOUNT_GROUPS)
            fail_launch("more than %d groups", MAX_ACCOUNT_GROUPS);
        account->groups[account->group_count++] = get_u32(field.value);
    }
}

static const char *variable(char **environment, const char *name)
{
    size_t length = strlen(name);

    for (; *environment != NULL; environment++)
        if (strncmp(*environment, name, length) == 0 && (*environment)[length] == '=')
            return *environment + length + 1;
    return NULL;
}

/* HOME, and TERM for a terminal, unless they are given. */
static char **whole_environment(char **given, size_t count, const struct account *account, bool terminal)
{
    char **environment = calloc(count + 3, sizeof *environment);
    static char term[] = "TERM=xterm";
    char *home;

    if (environment == NULL || asprintf(&home, "HOME=%s", account->home) < 0)
        fail_launch("environment");
    memcpy(environment, given, count * sizeof *environment);
    if (variable(given, "HOME") == NULL)
        environment[count++] = home;
    if (terminal && variable(given, "TERM") == NULL)
        environment[count++] = term;
    return environment;
}

/* Searches the request's own PATH in the image, as execvpe(3) would, but without a shell for what is no
 * program. */
__attribute__((noreturn)) static void execute(char **arguments, char **environment)
{
    const char *path = variable(environment, "PATH");
    char candidate[4096];
    int error = ENOENT;

    if (strchr(arguments[0], '/') != NULL) {
        execve(arguments[0], arguments, environment);
        fail_launch("%.400s", arguments[0]);
    }
    for (const char *from = path != NULL ? path : default_path;; from++) {
        size_t length = strcspn(from, ":");
        int written = snprintf(candidate, sizeof candidate, "%.*s%s%s", (int)length, from,
                               length > 0 ? "/" : "./", arguments[0]);

        if (written < (int)sizeof candidate) {
            execve(candidate, arguments, environment);
            if (errno != ENOENT && errno != ENOTDIR)
                error = errno;
        }
        from += length;
        if (*from == '\0')
            break;
    }
    errno = error;
    fail_launch("%.400s", arguments[0]);
}

/* The three descriptors, and nothing else: the status pipe closes itself. */
static void take_files(const struct launch_files *files, const struct account *account)
{
    if (setsid() < 0)
        fail_launch("setsid");
    if (files->terminal) {
        if (ioctl(files->input, TIOCSCTTY, 0) < 0)
            fail_launch("TIOCSCTTY");
        /* Whoever reopens /dev/tty or its own standard output may. */
        (void)!fchown(files->input, account->uid, (gid_t)-1);
    }
    if (dup2(files->input, 0) < 0 || dup2(files->output, 1) < 0 || dup2(files->error, 2) < 0)
        fail_launch("dup2");
    if (status_fd != 3 && dup3(status_fd, 3, O_CLOEXEC) < 0)
        fail_launch("dup3");
    status_fd = 3;
    if (close_range(4, ~0U, 0) < 0)
        fail_launch("close_range");
}

void launch(const struct fields *request, const struct launch_files *files)
{
    struct account account;
    char **arguments, **given;
    size_t argument_count, given_count;
    char *directory = read_text_field(request, TAG_DIRECTORY);
    uint32_t mask = 022, score;

    status_fd = files->status;
    errno = EINVAL;
    arguments = read_texts(request, TAG_ARGUMENT, &argument_count);
    given = read_texts(request, TAG_ENVIRONMENT, &given_count);
    if (arguments == NULL || given == NULL || argument_count == 0)
        fail_launch("an argument or variable with a NUL byte in it");
    read_account(request, &account);
    take_files(files, &account);
    reset_signals();
    enter_cgroup(request);
    if (read_u32(request, TAG_OOM_SCORE_ADJ, &score)) {
        char text[16];

        (void)snprintf(text, sizeof text, "%d", (int)score);
        write_file("/proc/self/oom_score_adj", text);
    }
    set_rlimits(request);
    (void)read_u32(request, TAG_UMASK, &mask);
    umask((mode_t)(mask & 0777));
    take_identity(request, &account);
    if (chdir(directory != NULL && *directory != '\0' ? directory : "/") < 0)
        fail_launch("chdir %.400s", directory);
    execute(arguments, whole_environment(given, given_count, &account, files->terminal));
}
