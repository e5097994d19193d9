--[[
register_schema.lua: give a schema an id, and a subject a version with it, unless they have them.

It belongs to no partition. A repeated call finds its own work and answers the same.

KEYS
  1  subjects  hash  name of each subject -> its versions: "1:5,2:7d" are version 1 with schema 5 and 2, deleted, with 7
  2  ids       hash  digest of each schema -> its id
  3  texts     hash  id -> text; nothing is ever taken out, so their number is the highest id
ARGV
  1  subject       string
  2  digest        bytes   the same for equal schemas
  3  text          string
  4  is_expected   0 | 1   whether the versions must be those of `expected` for a new one
  5  expected      string  the versions that were read; empty if there was no such subject
  6  max_schemas   int     most schemas, and most subjects
RETURNS
  {"registered", id, version}
  {"changed"}     the versions are others than those expected; this call changed nothing
  {"full", what}  there are as many `schemas` or `subjects` as there may be; this call changed nothing
COST  O(number of versions of the subject)
]]
local subjects, ids, texts = KEYS[1], KEYS[2], KEYS[3]
local subject, digest, text, is_expected, expected, max_schemas =
  ARGV[1], ARGV[2], ARGV[3], ARGV[4] == '1', ARGV[5], tonumber(ARGV[6])

local stored = redis.call('HGET', subjects, subject) or ''
local id = redis.call('HGET', ids, digest)
local schemas = redis.call('HLEN', texts)
local highest = 0
for version, known, deleted in string.gmatch(stored, '(%d+):(%d+)(d?)') do
  if known == id and deleted == '' then
    return {'registered', tonumber(id), tonumber(version)}
  end
  highest = math.max(highest, tonumber(version))
end
if is_expected and stored ~= expected then
  return {'changed'}
end
if not id and schemas >= max_schemas then
  return {'full', 'schemas'}
end
if stored == '' and redis.call('HLEN', subjects) >= max_schemas then
  return {'full', 'subjects'}
end

if not id then
  id = tostring(schemas + 1)
  -- The text first: broken off here, it has an id that nobody knows; the other way round an id would get two texts.
  redis.call('HSET', texts, id, text)
  redis.call('HSET', ids, digest, id)
end
local added = string.format('%d:%s', highest + 1, id)
redis.call('HSET', subjects, subject, stored == '' and added or stored .. ',' .. added)
return {'registered', tonumber(id), highest + 1}
