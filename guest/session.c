/* See session.h, and docs/guest-protocol.md, "Sessions" and "Requests". */
#define _GNU_SOURCE
#include "session.h"

#include "boot.h"
#include "files.h"
#include "filesystems.h"
#include "inspect.h"
#include "launch.h"
#include "links.h"
#include "names.h"
#include "power.h"
#include "processes.h"
#include "renewal.h"
#include "settling.h"
#include "streams.h"
#include "workers.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CONTROL_OUT_BYTES (1024 * 1024)
/* Requests are read only while fewer bytes of answers wait: who takes no answers gets no further ones. */
#define MAX_WAITING_BYTES (64 * 1024)
#define FRAMES_A_TURN 64

static struct channel control, streams;
static uint64_t session;       /* 0: none */
static uint64_t streams_hello; /* the session for which the streams channel was greeted */
static bool streams_open;      /* both channels have the session */
/* The host has left a port: what programs write is kept for the next one, or until this one says something again. Its
 * coming is heard before its greeting, and what was sent in between would be nobody's. */
static bool host_away;
static bool is_refused;        /* the host broke the rules: it is heard again when it says hello */

/* A request in several frames. */
static uint8_t *parts;
static size_t parts_length;
static uint8_t parts_type;
static uint32_t parts_id;

struct channel *control_channel(void)
{
    return &control;
}

struct channel *streams_channel(void)
{
    return &streams;
}

bool session_is_open(void)
{
    return session != 0;
}

static void end_session(void)
{
    session = 0;
    streams_open = false;
    parts_length = 0;
    cancel_all_work();
    cancel_settling();
    detach_processes();
    channel_discard(&control);
    channel_discard(&streams);
}

/* A session has its line for streams from its greeting on: before, it is an earlier host's that goes. */
static void channel_cut(struct channel *channel)
{
    bool is_earlier = channel == &streams && !streams_open;

    if (channel == &streams)
        streams_hello = 0;
    if (!is_earlier)
        end_session();
}

bool session_open(void)
{
    parts = malloc(MAX_REQUEST_BYTES);
    return parts != NULL && channel_init(&control, CONTROL_OUT_BYTES, channel_cut) &&
           channel_init(&streams, MAX_FRAME_BYTES, channel_cut);
}

bool announce(uint8_t type, uint32_t id, const struct field_writer *fields)
{
    uint8_t *room = session != 0 ? channel_room(&control, fields->length) : NULL;

    if (room == NULL)
        return false;
    memcpy(room, fields->bytes, fields->length);
    channel_commit(&control, type, 0, id, session, (uint32_t)fields->length);
    return true;
}

void reply(uint32_t request, const struct field_writer *fields)
{
    if (request != 0)
        (void)announce(FRAME_REPLY, request, fields);
}

void reply_nothing(uint32_t request)
{
    struct field_writer nothing = {.bytes = (uint8_t *)""};

    reply(request, &nothing);
}

void refuse(uint32_t request, int error, const char *format, ...)
{
    uint8_t bytes[1024];
    char message[768];
    struct field_writer writer = {.bytes = bytes, .capacity = sizeof bytes};
    va_list arguments;

    if (request == 0)
        return;
    va_start(arguments, format);
    (void)vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    put_u32_field(&writer, TAG_ERRNO, (uint32_t)error);
    put_text_field(&writer, TAG_MESSAGE, message);
    (void)announce(FRAME_ERROR, request, &writer);
}

/* One that a worker does. */
#define WORK(name, run, streams)                                \
    static void name(uint32_t id, const struct fields *request) \
    {                                                           \
        (void)start_work(id, request, run, streams);            \
    }

WORK(on_read_file, read_file, WORK_WRITES)
WORK(on_write_file, write_file_in, WORK_READS)
WORK(on_stat, stat_file, WORK_ALONE)
WORK(on_list, list_directory, WORK_WRITES)
WORK(on_make_directory, make_directory, WORK_ALONE)
WORK(on_make_link, make_link, WORK_ALONE)
WORK(on_set_resolver, set_resolver, WORK_ALONE)
WORK(on_set_hosts, set_hosts, WORK_ALONE)
WORK(on_wait_link, wait_link, WORK_ALONE)

static void on_ping(uint32_t id, const struct fields *request)
{
    struct field_writer echo = {.bytes = (uint8_t *)request->bytes, .length = request->length};

    reply(id, &echo);
}

#define TAGS(...) ((const uint16_t[]){__VA_ARGS__, 0})

/* Every request: who does it, which fields it may have, and whether it is for a guest whose start failed,
 * too. */
static const struct {
    uint8_t type;
    bool always;
    void (*handle)(uint32_t id, const struct fields *request);
    const uint16_t *tags;
} requests[] = {
    {FRAME_PING, true, on_ping, TAGS(TAG_ECHO)},
    {FRAME_INSPECT, true, inspect, TAGS(0)},
    {FRAME_EXEC, false, exec_process, exec_tags},
    {FRAME_ATTACH, false, attach_process, TAGS(TAG_PROCESS, TAG_STDIN, TAG_STDOUT, TAG_STDERR, TAG_WINDOW)},
    {FRAME_DETACH, false, detach_process, TAGS(TAG_PROCESS)},
    {FRAME_SIGNAL, false, signal_process, TAGS(TAG_PROCESS, TAG_SIGNAL, TAG_ALL)},
    {FRAME_RESIZE, false, resize_process, TAGS(TAG_PROCESS, TAG_TERMINAL)},
    {FRAME_RELEASE, false, release_process, TAGS(TAG_PROCESS)},
    {FRAME_PROCESSES, true, list_processes, TAGS(0)},
    {FRAME_READ_FILE, false, on_read_file, TAGS(TAG_PATH, TAG_STREAM, TAG_WINDOW)},
    {FRAME_WRITE_FILE, false, on_write_file,
     TAGS(TAG_PATH, TAG_STREAM, TAG_MODE, TAG_UID, TAG_GID, TAG_MTIME, TAG_SIZE, TAG_IN_PLACE)},
    {FRAME_STAT, false, on_stat, TAGS(TAG_PATH)},
    {FRAME_LIST, false, on_list, TAGS(TAG_PATH, TAG_STREAM, TAG_WINDOW)},
    {FRAME_MAKE_DIRECTORY, false, on_make_directory,
     TAGS(TAG_PATH, TAG_MODE, TAG_UID, TAG_GID, TAG_MTIME, TAG_PARENTS)},
    {FRAME_MAKE_LINK, false, on_make_link, TAGS(TAG_PATH, TAG_TARGET, TAG_UID, TAG_GID)},
    {FRAME_SEED, true, seed_random, TAGS(TAG_SEED)},
    {FRAME_SET_CLOCK, true, set_clock, TAGS(TAG_TIME)},
    {FRAME_SET_IDENTITY, false, set_identity,
     TAGS(TAG_HOSTNAME, TAG_MACHINE_ID, TAG_TOKEN, TAG_NAMESERVER, TAG_SEARCH, TAG_OPTION, TAG_HOST)},
    {FRAME_SET_LINK, false, set_link,
     TAGS(TAG_INTERFACE, TAG_MAC, TAG_NEW_MAC, TAG_MTU, TAG_UP, TAG_ADDRESS, TAG_ROUTE, TAG_REPLACE)},
    {FRAME_SET_RESOLVER, false, on_set_resolver, TAGS(TAG_NAMESERVER, TAG_SEARCH, TAG_OPTION)},
    {FRAME_SET_HOSTS, false, on_set_hosts, TAGS(TAG_HOST)},
    {FRAME_WAIT_LINK, false, on_wait_link, TAGS(TAG_INTERFACE, TAG_MAC, TAG_TIMEOUT)},
    {FRAME_SYNC, false, sync_filesystems, TAGS(0)},
    {FRAME_FREEZE, false, freeze_filesystems, TAGS(TAG_TIMEOUT)},
    {FRAME_THAW, false, thaw_filesystems, TAGS(0)},
    {FRAME_MOUNT, false, mount_filesystem,
     TAGS(TAG_SOURCE, TAG_PATH, TAG_FSTYPE, TAG_MOUNT_FLAGS, TAG_OPTIONS)},
    {FRAME_POWER, true, power, TAGS(TAG_ACTION, TAG_TIMEOUT)},
    {FRAME_SETTLE, false, settle, TAGS(0)},
};

static void handle_request(uint8_t type, uint32_t id, const struct fields *request)
{
    for (size_t i = 0; i < sizeof requests / sizeof *requests; i++) {
        if (requests[i].type != type)
            continue;
        if (!check_fields(request) || !only_fields(request, requests[i].tags))
            refuse(id, EINVAL, "a request of this kind has other fields");
        else if (!requests[i].always && boot_failure() != NULL)
            refuse(id, ENXIO, "the guest did not come up: %s", boot_failure());
        else
            requests[i].handle(id, request);
        return;
    }
    refuse(id, ENOSYS, "there is no request 0x%02x in version %d", type, PROTOCOL_VERSION);
}

static void say_welcome(struct channel *channel)
{
    uint8_t bytes[2048];
    struct field_writer writer = {.bytes = bytes, .capacity = sizeof bytes};
    uint8_t *room;

    put_u16_field(&writer, TAG_VERSION, PROTOCOL_VERSION);
    if (channel == &control)
        put_facts(&writer);
    room = channel_room(channel, writer.length);
    if (room == NULL)
        return;
    memcpy(room, bytes, writer.length);
    channel_commit(channel, FRAME_WELCOME, 0, 0, session, (uint32_t)writer.length);
}

/* The versions that both speak are the numbers between the two ends of a range, which this one has to be in.
 */
static bool speaks_version(const struct fields *hello)
{
    struct field from, to;

    return check_fields(hello) && find_field(hello, TAG_VERSION, &from) && from.length == 2 &&
           find_field(hello, TAG_VERSION_MAX, &to) && to.length == 2 &&
           get_u16(from.value) <= PROTOCOL_VERSION && get_u16(to.value) >= PROTOCOL_VERSION;
}

static void open_streams_if_greeted(void)
{
    if (session == 0 || streams_hello != session || streams_open)
        return;
    channel_discard(&streams);
    streams_open = true;
    say_welcome(&streams);
}

static void take_hello(const struct frame *frame)
{
    struct fields hello = {frame->payload, frame->length};

    if (frame->session == 0)
        return;
    end_session();
    is_refused = false;
    host_away = false;
    session = frame->session;
    if (!speaks_version(&hello)) {
        uint8_t bytes[16];
        struct field_writer writer = {.bytes = bytes, .capacity = sizeof bytes};

        put_u16_field(&writer, TAG_VERSION, PROTOCOL_VERSION);
        (void)announce(FRAME_ERROR, 0, &writer);
        is_refused = true;
        return;
    }
    say_welcome(&control);
    open_streams_if_greeted();
}

/* Nothing more is said or heard until the next hello. */
static void break_session(void)
{
    end_session();
    is_refused = true;
}

/* Requests of several frames are put together; others are handled where they lie. */
static void take_request(const struct frame *frame)
{
    struct fields request = {frame->payload, frame->length};
    bool more = (frame->flags & FLAG_MORE) != 0;

    if (parts_length > 0 && (frame->type != parts_type || frame->id != parts_id)) {
        break_session();
        return;
    }
    if (more || parts_length > 0) {
        if (frame->length == 0 || frame->length > MAX_REQUEST_BYTES - parts_length) {
            break_session();
            return;
        }
        memcpy(parts + parts_length, frame->payload, frame->length);
        parts_length += frame->length;
        parts_type = frame->type;
        parts_id = frame->id;
        if (more)
            return;
        request = (struct fields){parts, parts_length};
        parts_length = 0;
    }
    handle_request(frame->type, frame->id, &request);
}

static void note_host(const struct frame *frame)
{
    if (frame->session == session && session != 0)
        host_away = false;
}

static void take_control(const struct frame *frame)
{
    note_host(frame);
    if (frame->type == FRAME_HELLO)
        take_hello(frame);
    else if (frame->session != session || session == 0 || is_refused)
        return;
    else if (frame->id == 0)
        break_session();
    else if (frame->type == FRAME_CANCEL)
        cancel_work(frame->id);
    else
        take_request(frame);
}

static void take_streams(const struct frame *frame)
{
    note_host(frame);
    if (frame->type == FRAME_HELLO) {
        streams_hello = frame->session;
        open_streams_if_greeted();
    } else if (frame->session == session && streams_open && !streams_take(frame))
        break_session();
}

/* Reads frames until none is there, the turn is over, or answers have to go first. */
static bool read_channel(struct channel *channel, void (*take)(const struct frame *frame))
{
    struct frame frame;

    for (int i = 0; i < FRAMES_A_TURN; i++) {
        if (channel_waiting(&control) > MAX_WAITING_BYTES && channel == &control)
            return false;
        if (channel_read(channel, &frame))
            take(&frame);
        else if (!channel->readable)
            return false;
    }
    return true;
}

enum work session_work(void)
{
    bool more = false, children = reap_children();

    if (power_work(children))
        return WORK_STOP;
    announce_ends();
    channel_flush(&control);
    more |= read_channel(&control, take_control);
    more |= read_channel(&streams, take_streams);
    if (control.hung_up || streams.hung_up)
        host_away = true;
    control.hung_up = streams.hung_up = false;
    more |= streams_work(&streams, streams_open && !host_away ? session : 0);
    sweep_work();
    announce_ends();
    channel_flush(&control);
    return more ? WORK_MORE : WORK_DONE;
}
