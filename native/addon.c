/* Registers the addon's functions; native/index.ts gives them their types. */
#include "addon.h"

#define FUNCTION(exported, implementation) \
    { .utf8name = exported, .method = implementation, .attributes = napi_enumerable }

NAPI_MODULE_INIT(/* napi_env env, napi_value exports */)
{
    const napi_property_descriptor functions[] = {
        FUNCTION("lockFile", lock_file),
        FUNCTION("createMemory", create_memory),
        FUNCTION("sealMemory", seal_memory),
        FUNCTION("openTap", open_tap),
        FUNCTION("enslaveLink", enslave_link),
        FUNCTION("setLinkUp", set_link_up),
        FUNCTION("linkIndex", link_index),
        FUNCTION("openNeighbourEvents", open_neighbour_events),
        FUNCTION("listenUnix", listen_unix),
        FUNCTION("adoptListener", adopt_listener),
        FUNCTION("notify", notify),
        FUNCTION("sendDescriptor", send_descriptor),
        FUNCTION("peerCredentials", peer_credentials),
        FUNCTION("groupId", group_id),
        FUNCTION("openPidfd", open_pidfd),
        FUNCTION("signalPidfd", signal_pidfd),
        FUNCTION("spawnDetached", spawn_detached),
        FUNCTION("reap", reap),
        FUNCTION("readTicks", read_ticks),
        FUNCTION("openPipe", open_pipe),
        FUNCTION("watchReadable", watch_readable),
        FUNCTION("closeWatch", close_watch),
    };
    size_t count = sizeof functions / sizeof functions[0];

    return succeeded(env, napi_define_properties(env, exports, count, functions)) ? exports : NULL;
}
