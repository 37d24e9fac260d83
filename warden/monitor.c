/*
 * One client at a time, as QEMU has it. What it sends may come in any pieces, and in one piece with what is next; a
 * descriptor comes with the first byte of its command.
 */
#define _GNU_SOURCE
#include "monitor.h"

#include "client.h"
#include "options.h"
#include "process.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#define LONGEST_COMMAND (16 * 1024)
#define LONGEST_LINE 2048

static const char greeting[] = "{\"QMP\": {\"version\": {\"qemu\": {\"micro\": 0, \"minor\": 0, \"major\": 0}, "
                               "\"package\": \"roost-warden\"}, \"capabilities\": []}}\r\n";

static void client_ready(short happened);
static void listener_ready(short happened);

static struct watch listener = {.fd = MONITOR_FD, .events = POLLIN, .ready = listener_ready};
static struct client client = {.line = {.fd = -1, .ready = client_ready}};
static uint64_t client_number;
static bool is_negotiated;
static char heard[LONGEST_COMMAND];
static size_t heard_length;
static int passed = -1;

void monitor_open(void)
{
    loop_watch(&listener);
    loop_watch(&client.line);
}

int take_passed(void)
{
    int fd = passed;

    passed = -1;
    return fd;
}

static void hang_up(void)
{
    client_close(&client);
    listener.events = POLLIN;
    if (passed >= 0)
        close(take_passed());
}

static void send_line(const char *line, size_t length)
{
    client_send(&client, line, length);
    if (client.line.fd < 0)
        hang_up();
}

static void listener_ready(short happened)
{
    (void)happened;
    if (!client_accept(&client, listener.fd))
        return;
    listener.events = 0;
    client_number++;
    is_negotiated = false;
    heard_length = 0;
    /* It may be gone already. */
    send_line(greeting, strlen(greeting));
}

__attribute__((format(printf, 2, 3))) static void reply(const struct asker *asker, const char *format, ...)
{
    char line[LONGEST_LINE];
    va_list arguments;
    size_t length;

    if (asker->client != client_number || client.line.fd < 0)
        return;
    va_start(arguments, format);
    length = (size_t)vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    if (asker->id_length > 0)
        length += (size_t)snprintf(line + length, sizeof line - length, ", \"id\": %.*s", (int)asker->id_length,
                                   asker->id);
    length += (size_t)snprintf(line + length, sizeof line - length, "}\r\n");
    send_line(line, length);
}

void answer(struct asker *asker, const char *value)
{
    reply(asker, "{\"return\": %s", value == NULL ? "{}" : value);
    asker->client = 0;
}

void refuse(struct asker *asker, const char *class, const char *format, ...)
{
    char words[512], escaped[1024];
    va_list arguments;

    va_start(arguments, format);
    (void)vsnprintf(words, sizeof words, format, arguments);
    va_end(arguments);
    write_string(escaped, sizeof escaped, words);
    reply(asker, "{\"error\": {\"class\": \"%s\", \"desc\": \"%s\"}", class, escaped);
    asker->client = 0;
}

void tell(const char *event, const char *data, ...)
{
    char line[LONGEST_LINE];
    struct timeval now;
    size_t length;

    (void)gettimeofday(&now, NULL);
    length = (size_t)snprintf(line, sizeof line,
                              "{\"timestamp\": {\"seconds\": %lld, \"microseconds\": %lld}, \"event\": \"%s\"",
                              (long long)now.tv_sec, (long long)now.tv_usec, event);
    if (data != NULL) {
        va_list arguments;

        length += (size_t)snprintf(line + length, sizeof line - length, ", \"data\": ");
        va_start(arguments, data);
        length += (size_t)vsnprintf(line + length, sizeof line - length, data, arguments);
        va_end(arguments);
    }
    length += (size_t)snprintf(line + length, sizeof line - length, "}\r\n");
    /* A disk that is full takes no event; the container goes on. */
    (void)!write(EVENTS_FD, line, length);
    if (is_negotiated)
        send_line(line, length);
}

/* Takes a command apart; false, with a refusal sent, where it is none. */
static bool read_command(struct text object, struct text *name, struct text *arguments, struct asker *asker)
{
    struct text member, value, execute = {0}, id = {0};
    const char *place = NULL;

    while (next_member(object, &place, &member, &value)) {
        struct text *part = text_is(member, "execute")     ? &execute
                            : text_is(member, "arguments") ? arguments
                            : text_is(member, "id")        ? &id
                                                           : NULL;

        if (part == NULL || part->start != NULL) {
            refuse(asker, GENERIC, "QMP input member '%.*s' is unexpected", (int)member.length, member.start);
            return false;
        }
        *part = value;
        if (part != &id)
            continue;
        if (id.length > sizeof asker->id) {
            refuse(asker, GENERIC, "QMP input member 'id' is longer than %zu bytes", sizeof asker->id);
            return false;
        }
        memcpy(asker->id, id.start, id.length);
        asker->id_length = id.length;
    }
    if (!string_of(execute, name)) {
        refuse(asker, GENERIC, "QMP input lacks member 'execute', a string");
        return false;
    }
    if (arguments->start != NULL && *arguments->start != '{') {
        refuse(asker, GENERIC, "QMP input member 'arguments' must be an object");
        return false;
    }
    return true;
}

static void negotiate_or_do(struct text name, struct text arguments, struct asker *asker)
{
    bool is_negotiation = text_is(name, "qmp_capabilities");

    if (is_negotiation && is_negotiated)
        refuse(asker, NOT_FOUND, "Capabilities negotiation is already complete, command ignored");
    else if (is_negotiation) {
        is_negotiated = true;
        answer(asker, NULL);
    } else if (!is_negotiated)
        refuse(asker, NOT_FOUND, "Expecting capabilities negotiation with 'qmp_capabilities'");
    else
        do_command(name, arguments, asker);
}

/* Does what was heard wholly, and keeps the rest. */
static void obey(void)
{
    struct text rest = {.start = heard, .length = heard_length}, object;
    uint64_t from = client_number;
    enum reading reading;

    while ((reading = read_object(rest, &object)) == READ_WHOLE) {
        struct asker asker = {.client = client_number};
        struct text name = {0}, arguments = {0};
        const char *end = object.start + object.length;

        if (read_command(object, &name, &arguments, &asker))
            negotiate_or_do(name, arguments, &asker);
        /* An answer may have been too much for it. */
        if (client.line.fd < 0 || client_number != from)
            return;
        rest = (struct text){.start = end, .length = (size_t)(heard + heard_length - end)};
    }
    heard_length = rest.length;
    memmove(heard, rest.start, rest.length);
    if (reading == READ_BAD || heard_length == sizeof heard) {
        struct asker nobody = {.client = client_number};

        heard_length = 0;
        refuse(&nobody, GENERIC, reading == READ_BAD ? "JSON parse error, no object" : "The command is too long");
    }
}

static void keep_passed(struct msghdr *message)
{
    for (struct cmsghdr *part = CMSG_FIRSTHDR(message); part != NULL; part = CMSG_NXTHDR(message, part)) {
        size_t count = (part->cmsg_len - CMSG_LEN(0)) / sizeof(int);

        if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS)
            continue;
        for (size_t i = 0; i < count; i++) {
            if (passed >= 0)
                close(passed);
            memcpy(&passed, CMSG_DATA(part) + i * sizeof passed, sizeof passed);
        }
    }
}

static void client_ready(short happened)
{
    struct iovec space = {.iov_base = heard + heard_length, .iov_len = sizeof heard - heard_length};
    union {
        struct cmsghdr alignment;
        char bytes[CMSG_SPACE(4 * sizeof(int))];
    } control;
    struct msghdr message = {
        .msg_iov = &space,
        .msg_iovlen = 1,
        .msg_control = &control,
        .msg_controllen = sizeof control,
    };
    ssize_t got;

    if ((happened & POLLOUT) != 0)
        client_flush(&client);
    got = client.line.fd < 0 ? 0 : recvmsg(client.line.fd, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (got <= 0) {
        hang_up();
        return;
    }
    keep_passed(&message);
    heard_length += (size_t)got;
    obey();
}

void monitor_close(void)
{
    client_flush(&client);
    hang_up();
}
