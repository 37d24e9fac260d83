/* Frames of the agent's protocol; see docs/guest-protocol.md, "Frames". */
#include "frames.h"

#include <string.h>

static const uint8_t magic[4] = {0x8f, 'R', 'S', 'T'};

/* Where the parts of a header lie. */
enum {
    AT_TYPE = 4,
    AT_FLAGS = 5,
    AT_ZERO = 6,
    AT_LENGTH = 8,
    AT_ID = 12,
    AT_SESSION = 16,
    AT_PAYLOAD_CRC = 24,
    AT_CRC = 28
};

/* Eight bytes a step: table k gives what a byte does that stands k bytes before the end of the step. */
static uint32_t crc_tables[8][256];

static void make_crc_tables(void)
{
    for (uint32_t byte = 0; byte < 256; byte++) {
        uint32_t crc = byte;

        for (int bit = 0; bit < 8; bit++)
            crc = (crc >> 1) ^ (crc & 1 ? 0xedb88320U : 0);
        crc_tables[0][byte] = crc;
    }
    for (int k = 1; k < 8; k++)
        for (int byte = 0; byte < 256; byte++) {
            uint32_t crc = crc_tables[k - 1][byte];

            crc_tables[k][byte] = (crc >> 8) ^ crc_tables[0][crc & 0xff];
        }
}

uint32_t crc32_of(uint32_t before, const uint8_t *bytes, size_t length)
{
    uint32_t crc = ~before;

    if (crc_tables[0][1] == 0)
        make_crc_tables();
    for (; length >= 8; bytes += 8, length -= 8) {
        uint64_t step = get_u64(bytes) ^ crc;

        crc = crc_tables[7][step & 0xff] ^ crc_tables[6][step >> 8 & 0xff] ^
              crc_tables[5][step >> 16 & 0xff] ^ crc_tables[4][step >> 24 & 0xff] ^
              crc_tables[3][step >> 32 & 0xff] ^ crc_tables[2][step >> 40 & 0xff] ^
              crc_tables[1][step >> 48 & 0xff] ^ crc_tables[0][step >> 56];
    }
    for (; length > 0; bytes++, length--)
        crc = (crc >> 8) ^ crc_tables[0][(crc ^ *bytes) & 0xff];
    return ~crc;
}

uint16_t get_u16(const uint8_t *bytes)
{
    return (uint16_t)(bytes[0] | bytes[1] << 8);
}

uint32_t get_u32(const uint8_t *bytes)
{
    return (uint32_t)bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 | (uint32_t)bytes[3] << 24;
}

uint64_t get_u64(const uint8_t *bytes)
{
    return get_u32(bytes) | (uint64_t)get_u32(bytes + 4) << 32;
}

void put_u16(uint8_t *bytes, uint16_t value)
{
    bytes[0] = (uint8_t)value;
    bytes[1] = (uint8_t)(value >> 8);
}

void put_u32(uint8_t *bytes, uint32_t value)
{
    put_u16(bytes, (uint16_t)value);
    put_u16(bytes + 2, (uint16_t)(value >> 16));
}

void put_u64(uint8_t *bytes, uint64_t value)
{
    put_u32(bytes, (uint32_t)value);
    put_u32(bytes + 4, (uint32_t)(value >> 32));
}

void put_header(uint8_t *bytes, uint8_t type, uint8_t flags, uint32_t id, uint64_t session, uint32_t length)
{
    memcpy(bytes, magic, sizeof magic);
    bytes[AT_TYPE] = type;
    bytes[AT_FLAGS] = flags;
    put_u16(bytes + AT_ZERO, 0);
    put_u32(bytes + AT_LENGTH, length);
    put_u32(bytes + AT_ID, id);
    put_u64(bytes + AT_SESSION, session);
    put_u32(bytes + AT_PAYLOAD_CRC, crc32_of(0, bytes + HEADER_BYTES, length));
    put_u32(bytes + AT_CRC, crc32_of(0, bytes, AT_CRC));
}

static bool is_header(const uint8_t *bytes)
{
    return memcmp(bytes, magic, sizeof magic) == 0 && get_u32(bytes + AT_CRC) == crc32_of(0, bytes, AT_CRC) &&
           get_u16(bytes + AT_ZERO) == 0 && get_u32(bytes + AT_LENGTH) <= MAX_PAYLOAD_BYTES;
}

void reset_reader(struct frame_reader *reader)
{
    reader->start = 0;
    reader->end = 0;
}

uint8_t *reader_space(struct frame_reader *reader, size_t *size)
{
    /* Less than a whole frame is left after next_frame() found none: half of the buffer suffices for it. */
    if (reader->start > 0 && reader->end == sizeof reader->buffer) {
        memmove(reader->buffer, reader->buffer + reader->start, reader->end - reader->start);
        reader->end -= reader->start;
        reader->start = 0;
    }
    *size = sizeof reader->buffer - reader->end;
    return reader->buffer + reader->end;
}

void reader_took(struct frame_reader *reader, size_t size)
{
    reader->end += size;
}

/* To the next place where a header may begin. */
static void skip_to_magic(struct frame_reader *reader)
{
    const uint8_t *from = reader->buffer + reader->start;
    const uint8_t *found = memchr(from, magic[0], reader->end - reader->start);

    reader->start = found != NULL ? (size_t)(found - reader->buffer) : reader->end;
}

bool next_frame(struct frame_reader *reader, struct frame *frame)
{
    for (;;) {
        const uint8_t *bytes;
        size_t length;

        skip_to_magic(reader);
        bytes = reader->buffer + reader->start;
        if (reader->start == reader->end) {
            reset_reader(reader);
            return false;
        }
        if (reader->end - reader->start < HEADER_BYTES)
            return false;
        if (!is_header(bytes)) {
            reader->start++;
            continue;
        }
        length = get_u32(bytes + AT_LENGTH);
        if (reader->end - reader->start < HEADER_BYTES + length)
            return false;
        reader->start += HEADER_BYTES + length;
        if (crc32_of(0, bytes + HEADER_BYTES, length) != get_u32(bytes + AT_PAYLOAD_CRC))
            continue;
        *frame = (struct frame){.type = bytes[AT_TYPE],
                                .flags = bytes[AT_FLAGS],
                                .id = get_u32(bytes + AT_ID),
                                .session = get_u64(bytes + AT_SESSION),
                                .length = (uint32_t)length,
                                .payload = bytes + HEADER_BYTES};
        return true;
    }
}
