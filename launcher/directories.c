/*
 * A directory is served out of a mount of its own, in a namespace that ends with who serves it: what is read-only is so
 * by that mount, whatever the guest asks for, and no mount is ever seen on the host. What is mounted below the directory
 * at this moment belongs to it and is read-only with it; what is mounted there later is not seen.
 *
 * The connection has no name that anybody could use. The socket that is listened on has one for a moment, which the
 * kernel chose, and room for one connection: if somebody else were first, ours would be refused.
 *
 * virtiofsd ends when its connection does, and is killed when the process ends that became the program; so that it
 * needs nobody to look after it.
 */
#define _GNU_SOURCE
#include "directories.h"

#include "process.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

/* Descriptors of virtiofsd behind the three that everybody has; the locked file behind what it listens on. */
#define LISTENING 3
#define LISTENING_TEXT "3"
#define LOCKED 4
/* Beyond all of these, and of what is inherited. */
#define OUT_OF_THE_WAY 128
/* Where the directory is to whoever reads it, alone. virtiofsd is given no path of the host, in which a comma would be an option. */
#define PLACE "/mnt"

/* In place of the descriptor, whose number may be wanted for another. */
static int out_of_the_way(int fd)
{
    int moved = fcntl(fd, F_DUPFD_CLOEXEC, OUT_OF_THE_WAY);

    if (moved < 0)
        fail("fcntl descriptor %d", fd);
    close(fd);
    return moved;
}

struct line {
    int listening, connected;
};

static struct line open_line(void)
{
    struct line line;
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    socklen_t length = sizeof address.sun_family;

    line.listening = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    line.connected = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (line.listening < 0 || line.connected < 0)
        fail("socket");
    if (bind(line.listening, (struct sockaddr *)&address, length) < 0)
        fail("bind");
    length = sizeof address;
    if (getsockname(line.listening, (struct sockaddr *)&address, &length) < 0)
        fail("getsockname");
    if (listen(line.listening, 0) < 0)
        fail("listen");
    if (connect(line.connected, (struct sockaddr *)&address, length) < 0)
        fail("connect to what serves a directory");
    if (fcntl(line.connected, F_SETFL, 0) < 0)
        fail("fcntl");
    line.listening = out_of_the_way(line.listening);
    line.connected = out_of_the_way(line.connected);
    return line;
}

/* The directory, with what is mounted below it, in place of PLACE; nothing of it leaves this namespace. */
static void mount_directory(const char *path, uint64_t attributes_set)
{
    struct mount_attr attributes = {.attr_set = attributes_set, .propagation = MS_PRIVATE};
    struct stat status;
    int tree;

    if (unshare(CLONE_NEWNS) < 0)
        fail("unshare the mounts");
    /* What the host unmounts is unmounted here as well. */
    if (mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL) < 0)
        fail("make the mounts depend on the host's");
    tree = open_tree(AT_FDCWD, path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE);
    if (tree < 0 || fstat(tree, &status) < 0)
        fail("%s", path);
    errno = ENOTDIR;
    if (!S_ISDIR(status.st_mode))
        fail("%s", path);
    if (mount_setattr(tree, "", AT_EMPTY_PATH | AT_RECURSIVE, &attributes, sizeof attributes) < 0)
        fail("mount_setattr %s", path);
    if (move_mount(tree, "", AT_FDCWD, PLACE, MOVE_MOUNT_F_EMPTY_PATH) < 0)
        fail("mount %s at " PLACE, path);
    close(tree);
}

/* It has what it listens on, the locked file and a place for its words, and nothing of the program's. */
static void keep_descriptors(int listening, int locked)
{
    int nothing = open("/dev/null", O_RDWR | O_CLOEXEC);

    locked = out_of_the_way(locked);
    if (nothing < 0)
        fail("open /dev/null");
    if (dup2(nothing, STDIN_FILENO) < 0 || dup2(STDERR_FILENO, STDOUT_FILENO) < 0 ||
        dup2(listening, LISTENING) < 0 || dup2(locked, LOCKED) < 0)
        fail("dup2");
    if (close_range(LOCKED + 1, OUT_OF_THE_WAY - 1, 0) < 0)
        fail("close_range");
}

/* `ready` hears of it when all that can fail is done. */
__attribute__((noreturn)) static void become_virtiofsd(const struct options *options,
                                                       const struct directory *directory, int listening,
                                                       int ready)
{
    char *const arguments[] = {
        options->virtiofsd,
        "-f",
        "--fd=" LISTENING_TEXT,
        "-o",
        "source=" PLACE,
        "-o",
        /* No guest makes a device, or a program with capabilities, in a directory of the host. */
        "sandbox=namespace,cache=auto,announce_submounts,modcaps=-mknod:-setfcap,log_level=warn",
        NULL,
    };

    keep_descriptors(listening, options->directories_fd);
    if (chdir("/") < 0)
        fail("chdir /");
    mount_directory(directory->path, MOUNT_ATTR_NODEV | (directory->read_only ? MOUNT_ATTR_RDONLY : 0));
    if (write(ready, "", 1) != 1)
        fail("write");
    execv(options->virtiofsd, arguments);
    fail("%s", options->virtiofsd);
}

/* The child says itself what fails. */
static void await_readiness(int ready)
{
    char byte;
    ssize_t length;

    do
        length = read(ready, &byte, 1);
    while (length < 0 && errno == EINTR);
    if (length != 1)
        exit(EXIT_LAUNCH_FAILED);
}

static void note(const struct options *options, size_t index, pid_t pid)
{
    char line[192];
    int length = snprintf(line, sizeof line, "%zu ", index);

    length += (int)identity_line(pid, line + length, sizeof line - (size_t)length);
    if (write(options->directories_fd, line, (size_t)length) != length)
        fail("write descriptor %d", options->directories_fd);
}

static void serve(const struct options *options, size_t index)
{
    const struct directory *directory = &options->directories[index];
    struct line line = open_line();
    pid_t self = getpid(), child;
    int ready[2];

    if (pipe2(ready, O_CLOEXEC) < 0)
        fail("pipe");
    for (int i = 0; i < 2; i++)
        ready[i] = out_of_the_way(ready[i]);
    child = fork();
    if (child < 0)
        fail("fork");
    if (child == 0) {
        die_with(self);
        become_virtiofsd(options, directory, line.listening, ready[1]);
    }
    close(ready[1]);
    close(line.listening);
    note(options, index, child);
    await_readiness(ready[0]);
    close(ready[0]);
    if (dup2(line.connected, directory->fd) < 0)
        fail("dup2 to descriptor %d", directory->fd);
    close(line.connected);
}

void serve_directories(const struct options *options)
{
    int locked = options->directories_fd;

    if (options->directory_count == 0)
        return;
    if (ftruncate(locked, 0) < 0 || lseek(locked, 0, SEEK_SET) < 0)
        fail("ftruncate descriptor %d", locked);
    for (size_t i = 0; i < options->directory_count; i++)
        serve(options, i);
    /* Theirs alone: as long as it is locked, one of them is there. */
    close(locked);
}

void show_directory(const char *path)
{
    mount_directory(path, MOUNT_ATTR_RDONLY | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC |
                              MOUNT_ATTR_NOSYMFOLLOW);
}
