; A small kitchen, made so that every command and every sentence of ALFWorld can be had in it.
; loc_bar_0 is the middle of the room. Both counters share a place; so do the cabinet and the fridge.
(define (problem quirks) (:domain alfred) (:requirements :adl)
 (:objects
  agent1 - agent
  AppleType PlateType KnifeType ButterKnifeType DeskLampType CupType StatueType - otype
  CabinetType CounterTopType FridgeType MicrowaveType SinkBasinType BathtubBasinType - rtype
  Cabinet_bar_a - receptacle Cabinet_bar_b - receptacle
  CounterTop_bar_a - receptacle CounterTop_bar_b - receptacle
  Fridge_bar_a - receptacle Microwave_bar_a - receptacle
  Sink_bar_a_bar_SinkBasin - receptacle Bathtub_bar_a_bar_BathtubBasin - receptacle
  Apple_bar_a Apple_bar_b - object Knife_bar_a - object Plate_bar_a - object Cup_bar_a - object
  DeskLamp_bar_a - object Statue_bar_a - object
  loc_bar_0 loc_bar_1 loc_bar_2 loc_bar_3 loc_bar_4 loc_bar_5 loc_bar_6 - location)
 (:init
  (= (total-cost) 0)
  (atLocation agent1 loc_bar_0)
  (receptacleType Cabinet_bar_a CabinetType) (receptacleType Cabinet_bar_b CabinetType)
  (receptacleType CounterTop_bar_a CounterTopType) (receptacleType CounterTop_bar_b CounterTopType)
  (receptacleType Fridge_bar_a FridgeType) (receptacleType Microwave_bar_a MicrowaveType)
  (receptacleType Sink_bar_a_bar_SinkBasin SinkBasinType)
  (receptacleType Bathtub_bar_a_bar_BathtubBasin BathtubBasinType)
  (receptacleAtLocation CounterTop_bar_a loc_bar_1) (receptacleAtLocation CounterTop_bar_b loc_bar_1)
  (receptacleAtLocation Cabinet_bar_a loc_bar_2) (receptacleAtLocation Fridge_bar_a loc_bar_2)
  (receptacleAtLocation Cabinet_bar_b loc_bar_3) (receptacleAtLocation Microwave_bar_a loc_bar_4)
  (receptacleAtLocation Sink_bar_a_bar_SinkBasin loc_bar_5)
  (receptacleAtLocation Bathtub_bar_a_bar_BathtubBasin loc_bar_6)
  (openable Cabinet_bar_a) (openable Cabinet_bar_b) (openable Fridge_bar_a) (openable Microwave_bar_a)
  (objectType Apple_bar_a AppleType) (objectType Apple_bar_b AppleType)
  (objectType Knife_bar_a KnifeType) (objectType Plate_bar_a PlateType) (objectType Cup_bar_a CupType)
  (objectType DeskLamp_bar_a DeskLampType) (objectType Statue_bar_a StatueType)
  (canContain CounterTopType AppleType) (canContain CounterTopType KnifeType)
  (canContain CounterTopType PlateType) (canContain CounterTopType CupType)
  (canContain CounterTopType StatueType) (canContain CounterTopType DeskLampType)
  (canContain CabinetType AppleType) (canContain CabinetType PlateType)
  (canContain FridgeType AppleType) (canContain MicrowaveType AppleType)
  (canContain SinkBasinType AppleType) (canContain SinkBasinType CupType)
  (pickupable Apple_bar_a) (pickupable Apple_bar_b) (pickupable Knife_bar_a) (pickupable Plate_bar_a)
  (pickupable Cup_bar_a) (pickupable Statue_bar_a) (pickupable DeskLamp_bar_a)
  (isReceptacleObject Plate_bar_a) (inReceptacleObject Cup_bar_a Plate_bar_a)
  (cleanable Apple_bar_a) (cleanable Apple_bar_b) (cleanable Cup_bar_a)
  (heatable Apple_bar_a) (heatable Apple_bar_b) (coolable Apple_bar_a) (coolable Apple_bar_b)
  (sliceable Apple_bar_a) (sliceable Apple_bar_b) (toggleable DeskLamp_bar_a)
  (inReceptacle Apple_bar_a CounterTop_bar_a) (objectAtLocation Apple_bar_a loc_bar_1)
  (inReceptacle Apple_bar_b Cabinet_bar_b) (objectAtLocation Apple_bar_b loc_bar_3)
  (inReceptacle Knife_bar_a CounterTop_bar_b) (objectAtLocation Knife_bar_a loc_bar_1)
  (inReceptacle Plate_bar_a CounterTop_bar_b) (objectAtLocation Plate_bar_a loc_bar_1)
  (inReceptacle Cup_bar_a CounterTop_bar_b) (objectAtLocation Cup_bar_a loc_bar_1)
  (inReceptacle DeskLamp_bar_a CounterTop_bar_b) (objectAtLocation DeskLamp_bar_a loc_bar_1)
  (inReceptacle Statue_bar_a CounterTop_bar_a) (objectAtLocation Statue_bar_a loc_bar_1))
 (:goal (and
  (exists (?r - receptacle) (exists (?o1 - object) (and
    (objectType ?o1 AppleType) (receptacleType ?r CabinetType) (inReceptacle ?o1 ?r)
    (exists (?o2 - object) (and
      (not (= ?o1 ?o2)) (objectType ?o2 AppleType) (receptacleType ?r CabinetType)
      (inReceptacle ?o2 ?r)))))))))
