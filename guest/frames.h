/*
 * The frames of the agent's protocol (docs/guest-protocol.md): their form, their
 * checksums, and finding them again in a stream that was cut. Knows no meaning.
 */
#ifndef ROOST_GUEST_FRAMES_H
#define ROOST_GUEST_FRAMES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define HEADER_BYTES 32
#define MAX_FRAME_BYTES 65536
#define MAX_PAYLOAD_BYTES (MAX_FRAME_BYTES - HEADER_BYTES)

/* The payload goes on in the next frame of the channel, which has the same type and id. */
#define FLAG_MORE 1

enum frame_type {
    FRAME_HELLO = 0x01,
    FRAME_WELCOME = 0x02,
    FRAME_REPLY = 0x03,
    FRAME_ERROR = 0x04,
    FRAME_EXITED = 0x05,
    FRAME_CANCEL = 0x06,
    FRAME_DATA = 0x10,
    FRAME_END = 0x11,
    FRAME_STOP = 0x12,
    FRAME_CREDIT = 0x13,
    FRAME_PING = 0x20,
    FRAME_INSPECT = 0x21,
    FRAME_EXEC = 0x22,
    FRAME_ATTACH = 0x23,
    FRAME_SIGNAL = 0x24,
    FRAME_RESIZE = 0x25,
    FRAME_RELEASE = 0x26,
    FRAME_PROCESSES = 0x27,
    FRAME_DETACH = 0x28,
    FRAME_READ_FILE = 0x30,
    FRAME_WRITE_FILE = 0x31,
    FRAME_STAT = 0x32,
    FRAME_LIST = 0x33,
    FRAME_MAKE_DIRECTORY = 0x34,
    FRAME_MAKE_LINK = 0x35,
    FRAME_SEED = 0x40,
    FRAME_SET_CLOCK = 0x41,
    FRAME_SET_IDENTITY = 0x42,
    FRAME_SET_LINK = 0x43,
    FRAME_SET_RESOLVER = 0x44,
    FRAME_SET_HOSTS = 0x45,
    FRAME_WAIT_LINK = 0x46,
    FRAME_SYNC = 0x50,
    FRAME_FREEZE = 0x51,
    FRAME_THAW = 0x52,
    FRAME_MOUNT = 0x53,
    FRAME_POWER = 0x54,
    FRAME_SETTLE = 0x55,
};

struct frame {
    uint8_t type;
    uint8_t flags;
    uint32_t id;
    uint64_t session;
    uint32_t length;
    const uint8_t *payload; /* in the reader's buffer, until it is asked for the next frame */
};

struct frame_reader {
    size_t start, end; /* what is not read yet */
    uint8_t buffer[2 * MAX_FRAME_BYTES];
};

/* CRC-32 as in ISO-HDLC, gzip and zlib; `before` is that of the bytes before these, 0 for none. */
uint32_t crc32_of(uint32_t before, const uint8_t *bytes, size_t length);

uint16_t get_u16(const uint8_t *bytes);
uint32_t get_u32(const uint8_t *bytes);
uint64_t get_u64(const uint8_t *bytes);
void put_u16(uint8_t *bytes, uint16_t value);
void put_u32(uint8_t *bytes, uint32_t value);
void put_u64(uint8_t *bytes, uint64_t value);

/* Writes the header of a frame whose payload follows at `bytes + HEADER_BYTES`. */
void put_header(uint8_t *bytes, uint8_t type, uint8_t flags, uint32_t id, uint64_t session, uint32_t length);

/* Forgets everything: another connection begins. */
void reset_reader(struct frame_reader *reader);

/* Where the next bytes go, and how many; never 0 after next_frame() said that there is none. */
uint8_t *reader_space(struct frame_reader *reader, size_t *size);
void reader_took(struct frame_reader *reader, size_t size);

/*
 * Takes the next whole frame out. What is no header is skipped byte by byte; a frame
 * whose payload is damaged is skipped whole, for its payload is somebody's data, in
 * which anything may be written.
 */
bool next_frame(struct frame_reader *reader, struct frame *frame);

#endif
