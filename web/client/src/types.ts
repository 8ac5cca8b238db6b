/** Types of the gate's API. `npm run generate` creates their source from `docs/openapi.json`. */

import type { components } from "./schema.js";

type Schemas = components["schemas"];

/** A user's quota at one moment. */
export type Quota = Schemas["QuotaBody"];
/** A message that was charged or that passed. */
export type Consumed = Schemas["ConsumedBody"];
/** Held AP, or a message that passed. */
export type Reservation = Schemas["ReservationBody"];
/** A charged reservation. */
export type Committed = Schemas["CommittedBody"];
/** A released reservation. */
export type Released = Schemas["ReleasedBody"];
/** An accepted settlement, to be made when Redis is available again. */
export type Accepted = Schemas["AcceptedBody"];
/** A change of level. */
export type LevelChanged = Schemas["LevelSetBody"];
/** A level with a larger quota for the user. */
export type Upgrade = Schemas["Upgrade"];
/** A limit of a user: the period, a window, or concurrency. */
export type Limit = Schemas["LimitBody"];
/** A limit that does not allow a message, and when it would. */
export type BindingLimit = Schemas["BindingBody"];
/** A grant that can pay. */
export type LiveGrant = Schemas["LiveGrantBody"];
/** One way to send a denied message. */
export type Remedy = Schemas["RemedyBody"];
/** Problem codes. */
export type Code = Schemas["Code"];
/** Problem document of the gate. */
export type Problem = Schemas["Problem"] & Partial<Schemas["DenialNumbers"]>;
