-- Publish chunks of a running turn's text to its subscribers. They are content, so they are never on
-- the bus, and they are kept for minutes only: the outcome is the truth.
--
-- ARGV
--   dispatch_id
--   fence
--   lease
--   attempt
--   kept_max     most chunks kept
--   keep_ms      time for which the newest chunk is kept
--   chunks...    ChunkArgs
-- ChunkArgs
--   place   characters of the attempt's text up to the end of this chunk
--   before  characters of that text before this chunk
--   kind    'text' | 'retry' | 'fallback'
--   step    the step that produced the text
--   offset  the place of this chunk in the step's text
--   text    content
-- With     _holder
-- Keys     fleet:dispatch:, fleet:fences, fleet:agent:, fleet:speech:
-- Returns  1, or 0 when this attempt is no longer the current one
-- Invariants
--   Only the attempt that runs now, under the newest token, publishes.
--   A chunk's id is `<attempt>-<place>`: ids only grow, and a repeated call (its reply was
--   lost) writes nothing twice.

if not current(ARG.dispatch_id, ARG.fence, ARG.lease, ARG.attempt) then return 0 end

local attempt = ARG.attempt
local key, said = 'fleet:speech:' .. ARG.dispatch_id, 0
local last = redis.call('XREVRANGE', key, '+', '-', 'COUNT', 1)[1]
if last then
  local number, place = string.match(last[1], '^(%d+)-(%d+)$')
  if number == attempt then said = tonumber(place) end
end
local at, chunk = ARG.chunks + 1, nil
for _ = 1, tonumber(ARGV[ARG.chunks]) do
  chunk, at = ChunkArgs(at)
  if tonumber(chunk.place) > said then
    redis.call('XADD', key, 'MAXLEN', '~', ARG.kept_max, attempt .. '-' .. chunk.place,
      'from', chunk.before, 'kind', chunk.kind, 'step', chunk.step, 'offset', chunk.offset,
      'text', chunk.text)
  end
end
redis.call('PEXPIRE', key, ARG.keep_ms)
return 1
